// Package hungry holds small programs that misbehave on purpose, for tests of
// cgroups: each takes one kind of memory, processes or threads, up to a size
// that its caller names.
//
// The programs are one program with words, so that they combine:
//
//	anon 300M                       300 MiB of anonymous memory, then exit
//	hold 5s anon 100M               the same 100 MiB, kept for five seconds
//	setsid anon 300M                in a grandchild with a session of its own
//	say almost-full deaf leak 1M 10ms 1G
//
// A word either is a program (anon, tmpfs, forks, ...) or changes how the words
// after it run (hold, child, setsid, deaf, ...). See [Usage].
//
// Tests need no second binary: they run themselves again.
//
//	func TestMain(m *testing.M) {
//		if hungry.Called() {
//			os.Exit(hungry.Run(os.Args[1:]))
//		}
//		...
//	}
//
//	cmd := hungry.Command(t.Context(), "anon", "300M")
//
// Memory is always touched in order of its addresses: in a User Mode Linux
// guest each scattered page costs the host one mapping of vm.max_map_count.
package hungry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strconv"
	"strings"
	"time"
)

// mark is set in the environment of a process that is to be a hungry program.
const mark = "SANDRUN_HUNGRY"

// Exit statuses of Run, beside those that a program names itself.
const (
	ExitOK      = 0
	ExitFailed  = 1  // the program could not do what it was asked for
	ExitUsage   = 2  // unknown word, or a size that is none
	ExitRefused = 11 // EAGAIN: a fork or a thread was refused
	ExitNoMem   = 12 // ENOMEM: memory was refused and nobody was killed
)

// Called reports whether this process was started by [Command].
func Called() bool { return os.Getenv(mark) != "" }

// Env returns the variable that makes a test binary a hungry program.
func Env() string { return mark + "=1" }

// Command returns a command that runs this same binary as the program args. Its
// environment is the present one and [Env].
func Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), Env())
	return cmd
}

// A word takes its own arguments off the front of args and does its work.
// A word that changes others runs what is left.
type word struct {
	usage string
	run   func(p *program, args []string) error
}

// A program is one call of Run: what it holds stays reachable until it ends.
type program struct {
	hold time.Duration // how long to keep what was taken
	kept []any         // mappings and descriptors
}

// exitCode is an error that only carries an exit status.
type exitCode int

func (c exitCode) Error() string { return "exit status " + strconv.Itoa(int(c)) }

// errUsage is a mistake of the caller.
var errUsage = errors.New("bad usage")

// Run runs the program args and returns its exit status. What it takes is held
// until it returns; the process is expected to exit then.
func Run(args []string) int {
	p := &program{}
	err := p.run(args)
	var code exitCode
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "hungry: %v\n%s", err, Usage())
		return ExitUsage
	}
	fmt.Fprintf(os.Stderr, "hungry: %v\n", err)
	return ExitFailed
}

// run runs the word at the front of args.
func (p *program) run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: no word left", errUsage)
	}
	w, ok := vocabulary()[args[0]]
	if !ok {
		return fmt.Errorf("%w: unknown word %q", errUsage, args[0])
	}
	if err := w.run(p, args[1:]); err != nil {
		if code := exitCode(0); errors.As(err, &code) {
			return err
		}
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return nil
}

// Usage lists all words, one a line.
func Usage() string {
	var lines []string
	for name, w := range vocabulary() {
		lines = append(lines, "  "+name+" "+w.usage+"\n")
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}

// vocabulary is a function, not a variable, because the words call run.
func vocabulary() map[string]word {
	return map[string]word{
		// Memory, memory.go.
		"anon":     {"SIZE: private anonymous mapping, touched page by page", anon},
		"burst":    {"SIZE: the same, filled by the kernel in calls of up to 256 MiB (MAP_POPULATE)", burst},
		"heap":     {"SIZE: the language's own heap", heap},
		"leak":     {"STEP EVERY SIZE: STEP bytes each EVERY, up to SIZE", leak},
		"thp":      {"SIZE: anonymous, huge pages asked for", thp},
		"mlock":    {"SIZE: anonymous and locked", mlock},
		"swap":     {"SIZE ROUNDS: anonymous, written from start to end ROUNDS times", swap},
		"shared":   {"SIZE: shared anonymous mapping, charged as shmem", shared},
		"memfd":    {"SIZE: a file of memfd_create", memfd},
		"tmpfs":    {"DIR SIZE: unlinked files below DIR", tmpfs},
		"shm":      {"SIZE: unlinked files in /dev/shm", shm},
		"pipes":    {"SIZE: bytes waiting in pipes, charged as kernel memory", pipes},
		"sockets":  {"SIZE: bytes waiting in unix sockets, charged as kernel memory", sockets},
		"cache":    {"SIZE PATH...: reads files, which stay open, until SIZE bytes were read", cache},
		"enomem":   {"SIZE: anonymous up to SIZE under an RLIMIT_AS of half of it", enomem},
		"forks":    {"MAX TIME: children that only sleep, as fast as it goes, until TIME is over or 1,000 were refused", forks},
		"threads":  {"MAX: threads that wait", threads},
		"forktree": {"DEPTH WIDTH: each process starts WIDTH more, DEPTH deep; the last sleep for a second", forktree},

		// How the next words run, process.go.
		"hold":   {"TIME WORDS: keep what the words took for TIME", hold},
		"times":  {"N WORDS: in N children at once; the first bad status is its own", times},
		"child":  {"WORDS: in a child; exits as it does", child},
		"setsid": {"WORDS: in an orphaned grandchild in a session of its own; waits for it", setsid},
		"orphan": {"WORDS: the same, and exits at once", orphan},
		"deaf":   {"WORDS: with SIGHUP, SIGINT, SIGQUIT and SIGTERM ignored", deaf},
		"after":  {"TIME WORDS: sleeps, then the words", after},
		"say":    {"LINE WORDS: one line to standard output, then the words", say},
		"both":   {"WORDS , WORDS: the first words, then the second, in one process", both},

		// Ends, process.go.
		"sleep": {"TIME", sleep},
		"exit":  {"STATUS", exit},
		"die":   {"SIGNAL: sends itself the signal of that number", die},
		"spew":  {"SIZE: numbered lines to standard output, SIZE bytes exactly", spew},

		// Internal.
		"orphan-stage": {"WORDS: second half of setsid and orphan", orphanStage},
	}
}
