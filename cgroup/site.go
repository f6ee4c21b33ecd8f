package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sandrun/sandrun/internal/sys"
)

// outerName is the cgroup that takes the processes which were in a delegated
// cgroup before: one that holds processes cannot have limits on its children
// (the no-internal-process rule). It goes when the last run has left.
const outerName = Prefix + "outer"

// lockWait bounds the wait for other runs that enter or leave the same site.
const lockWait = 5 * time.Second

// A site is a delegated cgroup in which runs build their trees side by side.
type site struct {
	via  string
	path string
	// origin is where the calling process was, and goes back to. It is path itself
	// when processes of the site are to be moved aside.
	origin string
}

// aside reports whether the site's own processes must move before its
// controllers can be enabled. Only the root of the hierarchy is exempt.
func (s *site) aside() bool { return s.via != Root && s.origin == s.path }

// enter makes the run's directory with supervisor/ in it, moves the calling
// process there and enables the site's controllers. When it fails, all is as before.
func (s *site) enter(ctx context.Context, run string, cpu bool) (err error) {
	dir, unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.check(dir); err != nil {
		return err
	}
	if err := sys.MkdirAt(dir, run); err != nil {
		fix := fixFor(run, err)
		if errors.Is(err, fs.ErrExist) {
			fix = "a run of this id is there already; run 'sandrun gc' if it is dead"
		}
		return &FileError{Op: "create", Path: s.path + "/" + run, Err: err, Fix: fix}
	}
	defer func() {
		if err != nil {
			ctx, cancel := removal(context.WithoutCancel(ctx))
			defer cancel()
			err = errors.Join(err, s.leaveLocked(ctx, dir, run))
		}
	}()
	if err := sys.MkdirAt(dir, run+"/"+supervisorName); err != nil {
		return &FileError{Op: "create", Path: s.path + "/" + run + "/" + supervisorName, Err: err, Fix: fixFor(run, err)}
	}
	if err := move(dir, s.path, run+"/"+supervisorName, 0); err != nil {
		return err
	}
	if s.aside() {
		if err := s.moveAside(ctx, dir); err != nil {
			return err
		}
	}
	return enableControllers(dir, s.path, cpu)
}

// check refuses a site that is no place for a tree, before anything is changed.
func (s *site) check(dir int) error {
	if ok, err := sys.IsCgroup2(dir); err != nil || !ok {
		return &FileError{Op: "open", Path: s.path, Err: errors.Join(errors.New("not on a cgroup2 file system"), err)}
	}
	for _, f := range []string{".", "cgroup.procs", "cgroup.subtree_control"} {
		if err := sys.AccessWrite(dir, f); err != nil {
			return &FileError{Op: "write", Path: path.Join(s.path, f), Err: err, Fix: fixForSite(err)}
		}
	}
	if err := checkType(dir, s.path); err != nil {
		return err
	}
	if !s.aside() {
		return nil
	}
	pids, err := ownProcs(dir, s.path)
	if err != nil {
		return err
	}
	if who := strangers(pids, syscall.Getpid()); len(who) > 0 {
		return &FileError{
			Op: "write", Path: s.path + "/cgroup.subtree_control", Value: "+memory",
			Err: fmt.Errorf("the cgroup holds processes that are not of this process tree (%s), and they would have to move", describeSome(who)),
			Fix: "start sandrun in a scope of its own: systemd-run --user --scope -p Delegate=yes",
		}
	}
	return nil
}

// checkType refuses a threaded cgroup, which cannot have domain controllers
// such as memory below it. The root of the hierarchy has no type.
func checkType(dir int, dirPath string) error {
	var buf [64]byte
	n, err := sys.ReadFileAt(dir, "cgroup.type", buf[:])
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &FileError{Op: "read", Path: dirPath + "/cgroup.type", Err: err}
	}
	if got := strings.TrimSpace(string(buf[:n])); got != "domain" {
		return &FileError{Op: "read", Path: dirPath + "/cgroup.type", Value: got, Err: errors.New("memory can be limited only below a cgroup of type domain"), Fix: "start sandrun in a cgroup that holds whole processes"}
	}
	return nil
}

// moveAside empties the site of processes, into outerName.
func (s *site) moveAside(ctx context.Context, dir int) error {
	for made := false; ; {
		pids, err := ownProcs(dir, s.path)
		if err != nil || len(pids) == 0 {
			return err
		}
		if !made {
			if err := sys.MkdirAt(dir, outerName); err != nil && !errors.Is(err, fs.ErrExist) {
				return &FileError{Op: "create", Path: s.path + "/" + outerName, Err: err, Fix: fixFor(outerName, err)}
			}
			made = true
		}
		if err := moveAll(dir, s.path, outerName, pids); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil { // they fork faster than they are moved
			return &FileError{Op: "write", Path: s.path + "/" + outerName + "/cgroup.procs", Err: err}
		}
	}
}

// leave moves the calling process, and whatever else is in supervisor/, back to
// its origin and removes the run's directory with all in it. The last run that
// leaves a site puts the processes back that were moved aside.
func (s *site) leave(ctx context.Context, run string) error {
	dir, unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return s.leaveLocked(ctx, dir, run)
}

func (s *site) leaveLocked(ctx context.Context, dir int, run string) error {
	sup := run + "/" + supervisorName
	var errs []error
	fd, err := sys.OpenDirAt(dir, sup)
	switch {
	case err == nil:
		pids, err := procs(fd, s.path+"/"+sup)
		_ = sys.CloseFD(fd)
		errs = append(errs, err, s.evacuate(dir, pids))
	case !errors.Is(err, fs.ErrNotExist):
		errs = append(errs, &FileError{Op: "open", Path: s.path + "/" + sup, Err: err})
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if inside, err := callerIn(s.path + "/" + run); err != nil || inside { // what is in there gets killed
		return &FileError{Op: "remove", Path: s.path + "/" + run, Err: errors.Join(errors.New("this process could not leave it"), err), Fix: "run 'sandrun gc' later"}
	}
	return errors.Join(removeDir(ctx, dir, s.path+"/"+run), s.release(ctx, dir))
}

// evacuate moves processes out of the run's tree.
func (s *site) evacuate(dir int, pids []int) error {
	if len(pids) == 0 {
		return nil
	}
	if s.aside() {
		// While controllers are on, the site itself takes no process.
		if err := sys.MkdirAt(dir, outerName); err != nil && !errors.Is(err, fs.ErrExist) {
			return &FileError{Op: "create", Path: s.path + "/" + outerName, Err: err}
		}
		return moveAll(dir, s.path, outerName, pids)
	}
	origin, err := sys.OpenDir(s.origin)
	if errors.Is(err, fs.ErrNotExist) { // removed since: the root of the hierarchy takes any process
		return moveAll(dir, s.path, ".", pids)
	}
	if err != nil {
		return &FileError{Op: "open", Path: s.origin, Err: err}
	}
	defer func() { _ = sys.CloseFD(origin) }()
	return moveAll(origin, s.origin, ".", pids)
}

// release undoes moveAside when no tree is left in the site.
func (s *site) release(ctx context.Context, dir int) error {
	names, err := subdirs(dir, s.path)
	if err != nil || !slices.Contains(names, outerName) {
		return err
	}
	for _, n := range names {
		if n != outerName && strings.HasPrefix(n, Prefix) {
			return nil
		}
	}
	var buf [256]byte
	n, err := sys.ReadFileAt(dir, "cgroup.subtree_control", buf[:])
	if err != nil {
		return &FileError{Op: "read", Path: s.path + "/cgroup.subtree_control", Err: err}
	}
	for _, c := range strings.Fields(string(buf[:n])) {
		if err := sys.WriteFileAt(dir, "cgroup.subtree_control", []byte("-"+c)); err != nil {
			return &FileError{Op: "write", Path: s.path + "/cgroup.subtree_control", Value: "-" + c, Err: err}
		}
	}
	outer, err := sys.OpenDirAt(dir, outerName)
	if err != nil {
		return &FileError{Op: "open", Path: s.path + "/" + outerName, Err: err}
	}
	defer func() { _ = sys.CloseFD(outer) }()
	for {
		pids, err := ownProcs(outer, s.path+"/"+outerName)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			break
		}
		if err := moveAll(dir, s.path, ".", pids); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return &FileError{Op: "write", Path: s.path + "/cgroup.procs", Err: err}
		}
	}
	for { // the last process that moved out may keep it busy for a moment
		err := sys.RmdirAt(dir, outerName)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || ctx.Err() != nil {
			return &FileError{Op: "remove", Path: s.path + "/" + outerName, Err: err}
		}
		time.Sleep(time.Millisecond)
	}
}

// lock opens the site and keeps other runs from entering and leaving it.
func (s *site) lock(ctx context.Context) (dir int, unlock func(), err error) {
	dir, err = sys.OpenDir(s.path)
	if err != nil {
		return -1, nil, &FileError{Op: "open", Path: s.path, Err: err, Fix: fixForSite(err)}
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		err = sys.LockFD(dir)
		if err == nil {
			return dir, func() { _ = sys.CloseFD(dir) }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || ctx.Err() != nil {
			_ = sys.CloseFD(dir)
			return -1, nil, &FileError{Op: "lock", Path: s.path, Err: err, Fix: "another run enters or leaves this cgroup; try again"}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// roomFor reports a limit on the site or above it that is below the machine's
// caps: the run would be killed, or throttled, by a cap that is not the profile's.
func (s *site) roomFor(machine Limits) error {
	h, err := findHierarchy()
	if err != nil {
		return err
	}
	for dir := s.path; ; dir = path.Dir(dir) {
		for _, l := range []struct {
			file, flag string
			need       int64
		}{
			{"memory.max", "--memory", machine.Memory},
			{"memory.high", "--memory", machine.Memory},
			{"memory.swap.max", "--swap", machine.Swap},
			{"pids.max", "--pids", machine.Pids},
		} {
			has, err := readLimit(dir, l.file)
			if err != nil {
				return err
			}
			if has < l.need {
				return &FileError{
					Op: "read", Path: dir + "/" + l.file, Value: strconv.FormatInt(has, 10),
					Err: fmt.Errorf("this outer limit is tighter than the machine's %d", l.need),
					Fix: fmt.Sprintf("raise it, or choose a smaller machine: another --profile, or %s %d", l.flag, has),
				}
			}
		}
		if dir == h.mount || dir == "/" {
			return nil
		}
	}
}

// readLimit reads one limit of a cgroup by path; no file is no limit.
func readLimit(dir, file string) (int64, error) {
	fd, err := sys.OpenDir(dir)
	if err != nil {
		return 0, &FileError{Op: "open", Path: dir, Err: err}
	}
	defer func() { _ = sys.CloseFD(fd) }()
	n := Node{path: dir, fd: fd}
	v, err := n.value(file)
	if errors.Is(err, fs.ErrNotExist) {
		return math.MaxInt64, nil
	}
	return v, err
}

// move moves one process into the cgroup rel under dir; 0 is the caller.
func move(dir int, dirPath, rel string, pid int) error {
	err := sys.WriteFileAt(dir, rel+"/cgroup.procs", strconv.AppendInt(nil, int64(pid), 10))
	if err != nil {
		return &FileError{Op: "write", Path: path.Join(dirPath, rel, "cgroup.procs"), Value: strconv.Itoa(pid), Err: err, Fix: fixForJoin(err)}
	}
	return nil
}

// moveAll moves processes; those that are gone by then do not matter.
func moveAll(dir int, dirPath, rel string, pids []int) error {
	for _, pid := range pids {
		if err := move(dir, dirPath, rel, pid); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

func describeSome(pids []int) string {
	const most = 3
	var who []string
	for _, pid := range pids[:min(len(pids), most)] {
		who = append(who, describe(pid))
	}
	if len(pids) > most {
		who = append(who, fmt.Sprintf("and %d more", len(pids)-most))
	}
	return strings.Join(who, ", ")
}
