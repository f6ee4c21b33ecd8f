package harness

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// goEnv is what `go env KEY` would print for a command started with environ, as far as
// it is set somewhere, and where that is: in the environment, which hides the file of
// `go env -w`, which hides $GOROOT/go.env. A GOFLAGS that is hidden is lost, so it must
// be read before one is set.
//
// The files are read here, because starting `go` takes 10 ms, and ten times that in a
// guest kernel. The rules are those of cmd/go/internal/cfg, and a test holds them
// against the real `go env`.
func goEnv(environ []string, key string) (value, source string) {
	if v := getenv(environ, key); v != "" {
		return v, "the environment"
	}
	userFile := goEnvFile(environ)
	user := readGoEnv(userFile)
	if v, ok := user[key]; ok {
		return v, userFile
	}
	if root := goRoot(environ, user["GOROOT"]); root != "" {
		file := filepath.Join(root, "go.env")
		if v, ok := readGoEnv(file)[key]; ok {
			return v, file
		}
	}
	return "", ""
}

// goEnvFile is the file of `go env -w`, or "" when there is none.
func goEnvFile(environ []string) string {
	switch file := getenv(environ, "GOENV"); file {
	case "":
	case "off":
		return ""
	default:
		return file
	}
	if dir := getenv(environ, "XDG_CONFIG_HOME"); dir != "" {
		if !filepath.IsAbs(dir) {
			return "" // as os.UserConfigDir
		}
		return filepath.Join(dir, "go", "env")
	}
	if home := getenv(environ, "HOME"); home != "" {
		return filepath.Join(home, ".config", "go", "env")
	}
	return ""
}

// readGoEnv reads the KEY=VALUE lines of a file of cmd/go's. Like cmd/go, it takes a
// file that cannot be read for an empty one, and passes over lines that are something else.
func readGoEnv(file string) map[string]string {
	if file == "" {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	env := map[string]string{}
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		key, value, ok := bytes.Cut(line, []byte("="))
		if !ok || len(line) == 0 || line[0] < 'A' || line[0] > 'Z' {
			continue
		}
		env[string(key)] = string(value)
	}
	return env
}

// goRoot is the GOROOT of the `go` that a command started with environ would find.
func goRoot(environ []string, user string) string {
	if root := getenv(environ, "GOROOT"); root != "" {
		return root
	}
	if user != "" {
		return user
	}
	file := lookPath(environ, "go")
	if file == "" {
		return ""
	}
	file, err := filepath.EvalSymlinks(file)
	if err != nil {
		return ""
	}
	return filepath.Dir(filepath.Dir(file)) // GOROOT/bin/go
}

// lookPath is the file that a command started with environ finds under this name, or "".
func lookPath(environ []string, name string) string {
	for _, dir := range filepath.SplitList(getenv(environ, "PATH")) {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file
		}
	}
	return ""
}

// crossRunner is the program by which cmd/go runs binaries for another machine where
// there is no -exec: go_GOOS_GOARCH_exec on PATH, such as go_js_wasm_exec.
func crossRunner(environ []string) string {
	goos, _ := goEnv(environ, "GOOS")
	goarch, _ := goEnv(environ, "GOARCH")
	goos, goarch = cmp.Or(goos, runtime.GOOS), cmp.Or(goarch, runtime.GOARCH)
	if goos == runtime.GOOS && goarch == runtime.GOARCH {
		return ""
	}
	return lookPath(environ, "go_"+goos+"_"+goarch+"_exec")
}

// splitFlags splits s as cmd/internal/quoted does: at blanks, where a field that
// begins with a quote lasts to the next one of the same kind. Inside there is no
// escaping, and a quote inside a field is a letter like any other.
func splitFlags(s string) ([]string, error) {
	const blanks = " \t\n\r"
	var fields []string
	for {
		s = strings.TrimLeft(s, blanks)
		if s == "" {
			return fields, nil
		}
		if q := s[0]; q == '"' || q == '\'' {
			field, rest, ok := strings.Cut(s[1:], string(q))
			if !ok {
				return nil, fmt.Errorf("unterminated %c string", q)
			}
			fields, s = append(fields, field), rest
			continue
		}
		end := strings.IndexAny(s, blanks)
		if end < 0 {
			end = len(s)
		}
		fields, s = append(fields, s[:end]), s[end:]
	}
}

// lookupFlag returns the value of the last -name=value or --name=value in fields.
func lookupFlag(fields []string, name string) (value string, ok bool) {
	for _, f := range fields {
		f, dash := strings.CutPrefix(f, "-")
		if !dash {
			continue
		}
		key, v, _ := strings.Cut(strings.TrimPrefix(f, "-"), "=")
		if key == name {
			value, ok = v, true
		}
	}
	return value, ok
}
