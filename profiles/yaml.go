package profiles

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// A file of profiles has at most so many bytes, no value begins further to the right
// than maxColumn, and brackets are nested at most maxDepth deep. The parser takes
// time with the square of how deep a file goes. The longest of the catalogue has 4 KiB.
const (
	maxFile   = 64 << 10
	maxColumn = 512
	maxDepth  = 32
)

// A FileError is a mistake in a file of profiles: where it is, what it is about,
// and what would be right.
type FileError struct {
	File         string
	Line, Column int    // from 1; 0 where the whole file is meant
	Key          string // "profiles.ci.memory"; "" where none is concerned
	Err          error
}

func (e *FileError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Err.Error())
	return b.String()
}

func (e *FileError) Unwrap() error { return e.Err }

// A value is one scalar of a file, or a place in it.
type value struct {
	text      string
	file      string
	line, col int
	key       string // its path from the top of the file
}

func (v *value) errorf(format string, args ...any) error {
	return &FileError{File: v.file, Line: v.line, Column: v.col, Key: v.key, Err: fmt.Errorf(format, args...)}
}

// wrap gives err the value's place, unless it has one already.
func (v *value) wrap(err error) error {
	var fe *FileError
	if err == nil || errors.As(err, &fe) {
		return err
	}
	return &FileError{File: v.file, Line: v.line, Column: v.col, Key: v.key, Err: err}
}

// A spec is one profile as it is written: nothing is computed yet, and what is not
// written is nil.
type spec struct {
	name, family string
	own          bool
	at           value

	extends, title           *value
	vcpus, nominal, memory   *value
	swap, pids, main         *value
	workers, lightWorkers    *value
	headroomAt               *value
	headroom                 []value // key holds the part's name
	workerMemory             *value
	workerSwap, workerPids   *value
	expect                   []specExpect
	expectAt                 *value
	basisKind, basisNote     *value
	basisURL                 *value
	sourceAt, basisAt        *value
	sourceURL, sourceDate    *value
	sourceNote               *value
	fileSource, fileDefaults *spec // of the file, for what the profile itself leaves out
}

type specExpect struct {
	at              value
	workers, memory *value
}

// A document is what one file holds.
type document struct {
	family   string
	profiles []*spec
}

// The keys of each mapping, in the order that errors list them.
var (
	ownKeys       = []string{"profiles"}
	catalogueKeys = []string{"family", "source", "defaults", "profiles"}
	profileKeys   = []string{
		"extends", "title", "vcpus", "nominal", "memory", "swap", "pids", "headroom",
		"main", "workers", "light_workers", "worker", "expect", "basis", "source",
	}
	workerKeys = []string{"memory", "swap", "pids"}
	basisKeys  = []string{"kind", "note", "url"}
	sourceKeys = []string{"url", "date", "note"}
	expectKeys = []string{"workers", "memory"}
)

// parseFile reads a file of profiles. An own file has only the section "profiles".
func parseFile(file string, data []byte, own bool) (doc *document, err error) {
	whole := value{file: file}
	if len(data) > maxFile {
		return nil, whole.errorf("it has %d bytes; a file of profiles has at most %d", len(data), maxFile)
	}
	tokens := lexer.Tokenize(string(data))
	if err := shallow(file, tokens); err != nil {
		return nil, err
	}
	f, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var ye yaml.Error
		if errors.As(err, &ye) && ye.GetToken() != nil && ye.GetToken().Position != nil {
			p := ye.GetToken().Position
			return nil, &FileError{File: file, Line: p.Line, Column: p.Column, Err: fmt.Errorf("not YAML: %s", shown(ye.GetMessage()))}
		}
		return nil, whole.errorf("not YAML: %s", shown(err.Error()))
	}
	r := &reader{file: file}
	doc = &document{}
	var root ast.Node
	for _, d := range f.Docs {
		if d.Body == nil {
			continue
		}
		if root != nil {
			return nil, r.at(d.Body, "").errorf("a second document; a file of profiles is one")
		}
		root = d.Body
	}
	if root == nil || root.Type() == ast.NullType || root.Type() == ast.CommentType {
		return doc, nil
	}
	keys := ownKeys
	if !own {
		keys = catalogueKeys
	}
	top, err := r.mapping(root, "", keys)
	if err != nil {
		return nil, err
	}
	var defaults, source *spec
	for _, e := range top {
		switch e.key {
		case "family":
			v, err := r.scalar(e.node, e.key)
			if err != nil {
				return nil, err
			}
			doc.family = v.text
		case "source":
			source = &spec{}
			if err := r.source(e, source); err != nil {
				return nil, err
			}
		case "defaults":
			if defaults, err = r.profile(e); err != nil {
				return nil, err
			}
		}
	}
	for _, e := range top {
		if e.key != "profiles" {
			continue
		}
		entries, err := r.mapping(e.node, e.path, nil)
		if err != nil {
			return nil, err
		}
		for _, p := range entries {
			s, err := r.profile(p)
			if err != nil {
				return nil, err
			}
			s.name, s.family, s.own = p.key, doc.family, own
			s.fileSource, s.fileDefaults = source, defaults
			if defaults != nil && s.extends == nil {
				s.inherit(defaults)
			}
			doc.profiles = append(doc.profiles, s)
		}
	}
	return doc, nil
}

// shallow refuses what is nested deeper than any profile.
func shallow(file string, tokens token.Tokens) error {
	depth := 0
	for _, t := range tokens {
		if t.Position == nil {
			continue
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		}
		if depth > maxDepth || t.Position.Column > maxColumn {
			return &FileError{
				File: file, Line: t.Position.Line, Column: t.Position.Column,
				Err: errors.New("it is nested too deep, or the line is too long, for a file of profiles"),
			}
		}
	}
	return nil
}

// inherit takes what s leaves out from the defaults of its file.
func (s *spec) inherit(d *spec) {
	take := func(to **value, from *value) {
		if *to == nil {
			*to = from
		}
	}
	take(&s.title, d.title)
	take(&s.vcpus, d.vcpus)
	take(&s.nominal, d.nominal)
	take(&s.memory, d.memory)
	take(&s.swap, d.swap)
	take(&s.pids, d.pids)
	take(&s.main, d.main)
	if s.workers == nil {
		take(&s.lightWorkers, d.lightWorkers)
	}
	take(&s.workers, d.workers)
	if s.headroomAt == nil {
		s.headroomAt, s.headroom = d.headroomAt, d.headroom
	}
	take(&s.workerMemory, d.workerMemory)
	take(&s.workerSwap, d.workerSwap)
	take(&s.workerPids, d.workerPids)
	if s.expectAt == nil {
		s.expectAt, s.expect = d.expectAt, d.expect
	}
}

// A reader walks the tree of one file.
type reader struct{ file string }

// An entry is one key of a mapping with what it holds.
type entry struct {
	key, path string
	at        value // the key's place
	node      ast.Node
}

func (r *reader) at(n ast.Node, path string) *value {
	v := &value{file: r.file, key: path}
	if t := n.GetToken(); t != nil && t.Position != nil {
		v.line, v.col = t.Position.Line, t.Position.Column
	}
	return v
}

// kind names a node's type in the words of a reader of YAML.
func kind(n ast.Node) string {
	switch n.Type() {
	case ast.MappingType, ast.MappingValueType:
		return "a mapping"
	case ast.SequenceType:
		return "a list"
	case ast.NullType:
		return "nothing"
	case ast.BoolType:
		return "true or false"
	case ast.AnchorType, ast.AliasType, ast.MergeKeyType:
		return "an anchor or alias"
	case ast.TagType:
		return "a tag"
	}
	return "a plain value"
}

// mapping returns the entries of a mapping in their order; keys, unless nil, are
// the only ones allowed.
func (r *reader) mapping(n ast.Node, path string, keys []string) ([]entry, error) {
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		at := r.at(n, path)
		switch k := kind(n); {
		case n.Type() == ast.AnchorType || n.Type() == ast.AliasType:
			return nil, at.errorf("anchors and aliases are not read here; let one profile extend another (extends: NAME)")
		case keys == nil:
			return nil, at.errorf("it holds %s; it must be a mapping, NAME: ...", k)
		default:
			return nil, at.errorf("it holds %s; it must be a mapping of %s", k, strings.Join(keys, ", "))
		}
	}
	var out []entry
	seen := map[string]value{}
	for _, mv := range values {
		kv := r.at(mv.Key, path)
		if mv.Key.Type() != ast.StringType && mv.Key.Type() != ast.IntegerType && mv.Key.Type() != ast.FloatType {
			if mv.Key.Type() == ast.MergeKeyType {
				return nil, kv.errorf("anchors and aliases are not read here; let one profile extend another (extends: NAME)")
			}
			return nil, kv.errorf("a key must be a plain name")
		}
		name := mv.Key.GetToken().Value
		if name != shown(name) {
			return nil, kv.errorf("the key %q has a character that cannot be shown", name)
		}
		e := entry{key: name, path: join(path, name), at: *kv, node: mv.Value}
		e.at.key = e.path
		if keys != nil && !slices.Contains(keys, name) {
			return nil, kv.errorf("unknown key %q; %s", name, suggest(name, keys))
		}
		if first, ok := seen[name]; ok {
			return nil, e.at.errorf("it is here a second time; the first is in line %d", first.line)
		}
		seen[name] = e.at
		out = append(out, e)
	}
	return out, nil
}

// scalar returns the text of a plain or quoted value.
func (r *reader) scalar(n ast.Node, path string) (*value, error) {
	v := r.at(n, path)
	switch n := n.(type) {
	case *ast.StringNode:
		v.text = n.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		v.text = n.GetToken().Value
	case *ast.AnchorNode, *ast.AliasNode:
		return nil, v.errorf("anchors and aliases are not read here; let one profile extend another (extends: NAME)")
	default:
		return nil, v.errorf("it holds %s; it must be one plain value", kind(n))
	}
	if v.text != shown(v.text) {
		return nil, v.errorf("%q has a character that cannot be shown", v.text)
	}
	return v, nil
}

// shown is s with an escape for each character that is none to look at. The file may
// be a stranger's, and what it says is written to a terminal.
func shown(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// profile reads what stands under one profile's name.
func (r *reader) profile(e entry) (*spec, error) {
	s := &spec{at: e.at}
	entries, err := r.mapping(e.node, e.path, profileKeys)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		var to **value
		switch e.key {
		case "extends":
			to = &s.extends
		case "title":
			to = &s.title
		case "vcpus":
			to = &s.vcpus
		case "nominal":
			to = &s.nominal
		case "memory":
			to = &s.memory
		case "swap":
			to = &s.swap
		case "pids":
			to = &s.pids
		case "main":
			to = &s.main
		case "workers":
			to = &s.workers
		case "light_workers":
			to = &s.lightWorkers
		case "headroom":
			err = r.headroom(e, s)
		case "worker":
			err = r.worker(e, s)
		case "expect":
			err = r.expect(e, s)
		case "basis":
			err = r.basis(e, s)
		case "source":
			err = r.source(e, s)
		}
		if to != nil {
			*to, err = r.scalar(e.node, e.path)
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (r *reader) headroom(e entry, s *spec) error {
	parts, err := r.mapping(e.node, e.path, nil)
	if err != nil {
		return err
	}
	at := e.at
	s.headroomAt = &at
	for _, p := range parts {
		v, err := r.scalar(p.node, p.path)
		if err != nil {
			return err
		}
		if strings.TrimSpace(p.key) == "" {
			return p.at.errorf("a part of the headroom must have a name")
		}
		s.headroom = append(s.headroom, *v)
	}
	return nil
}

func (r *reader) worker(e entry, s *spec) error {
	return r.fields(e, workerKeys, map[string]**value{
		"memory": &s.workerMemory, "swap": &s.workerSwap, "pids": &s.workerPids,
	})
}

func (r *reader) basis(e entry, s *spec) error {
	at := e.at
	s.basisAt = &at
	return r.fields(e, basisKeys, map[string]**value{
		"kind": &s.basisKind, "note": &s.basisNote, "url": &s.basisURL,
	})
}

func (r *reader) source(e entry, s *spec) error {
	at := e.at
	s.sourceAt = &at
	return r.fields(e, sourceKeys, map[string]**value{
		"url": &s.sourceURL, "date": &s.sourceDate, "note": &s.sourceNote,
	})
}

// fields reads a mapping of plain values.
func (r *reader) fields(e entry, keys []string, to map[string]**value) error {
	entries, err := r.mapping(e.node, e.path, keys)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if *to[e.key], err = r.scalar(e.node, e.path); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) expect(e entry, s *spec) error {
	at := e.at
	s.expectAt = &at
	list, ok := e.node.(*ast.SequenceNode)
	if !ok {
		return r.at(e.node, e.path).errorf("it holds %s; it must be a list of {workers: N, memory: FROM-TO}", kind(e.node))
	}
	for i, n := range list.Values {
		path := fmt.Sprintf("%s[%d]", e.path, i)
		x := specExpect{at: *r.at(n, path)}
		err := r.fields(entry{path: path, at: x.at, node: n}, expectKeys, map[string]**value{
			"workers": &x.workers, "memory": &x.memory,
		})
		if err != nil {
			return err
		}
		if x.workers == nil || x.memory == nil {
			return x.at.errorf("it must have both workers and memory")
		}
		s.expect = append(s.expect, x)
	}
	return nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// suggest names the nearest of names, or all of them when none is near.
func suggest(s string, names []string) string {
	if n := nearest(s, names); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	if len(names) == 1 {
		return fmt.Sprintf("%q is the only one", names[0])
	}
	return "there are " + strings.Join(names, ", ")
}

// nearest returns the name that is most like s, "" if none is like it.
func nearest(s string, names []string) string {
	best, score := "", 0.0
	for _, n := range names {
		if m := levenshtein.Match(strings.ToLower(s), strings.ToLower(n), nil); m > score {
			best, score = n, m
		}
	}
	if score < 0.6 {
		return ""
	}
	return best
}
