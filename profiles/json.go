package profiles

import (
	"encoding/json"
	"io"
)

// jsonSchema is the version of the JSON form. It grows by one when a field changes
// its meaning or goes away; new fields do not change it.
const jsonSchema = 1

type jsonList struct {
	Schema   int           `json:"schema"`
	File     string        `json:"file,omitempty"` // the sandrun.yaml that was found
	Profiles []jsonProfile `json:"profiles"`
}

type jsonExplanation struct {
	Schema  int         `json:"schema"`
	Profile jsonProfile `json:"profile"`
	Files   []jsonWrite `json:"files"`
}

// jsonProfile is a profile as it stands, bytes and tasks, and the machine made from it.
type jsonProfile struct {
	Name     string         `json:"name"`
	Family   string         `json:"family,omitempty"`
	Title    string         `json:"title,omitempty"`
	File     string         `json:"file,omitempty"`
	Line     int            `json:"line,omitempty"`
	Extends  string         `json:"extends,omitempty"`
	VCPUs    float64        `json:"vcpus"`
	Nominal  int64          `json:"nominal"`
	Memory   int64          `json:"memory"`
	Basis    jsonBasis      `json:"basis"`
	Swap     int64          `json:"swap"`
	Headroom []jsonHeadroom `json:"headroom"`
	Workers  jsonWorkers    `json:"workers"`
	Expect   []jsonExpect   `json:"expect,omitempty"`
	Source   jsonSource     `json:"source"`
	Machine  *jsonMachine   `json:"machine,omitempty"`
	Error    string         `json:"error,omitempty"` // why this machine cannot hold it
}

type jsonBasis struct {
	Kind string `json:"kind"`
	Note string `json:"note,omitempty"`
	URL  string `json:"url,omitempty"`
}

type jsonSource struct {
	URL  string `json:"url,omitempty"`
	Date string `json:"date,omitempty"`
	Note string `json:"note,omitempty"`
}

type jsonHeadroom struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

type jsonWorkers struct {
	Text  string `json:"text"`
	Auto  bool   `json:"auto"`
	Count int    `json:"count,omitempty"`
	UpTo  int    `json:"up_to,omitempty"`
	Light int    `json:"light,omitempty"`
}

type jsonExpect struct {
	Workers int   `json:"workers"`
	From    int64 `json:"from"`
	To      int64 `json:"to"`
}

type jsonMachine struct {
	Summary      string     `json:"summary"`
	VCPUs        float64    `json:"vcpus"`
	Memory       int64      `json:"memory"`
	Budget       int64      `json:"budget"`
	Swap         int64      `json:"swap"`
	Pids         int64      `json:"pids"`
	Workers      int        `json:"workers"`
	WorkerLimits jsonLimits `json:"worker_limits"`
	Main         int64      `json:"main"`
	Notes        []string   `json:"notes,omitempty"`
}

type jsonLimits struct {
	Memory int64 `json:"memory_max"`
	Swap   int64 `json:"memory_swap_max"`
	Pids   int64 `json:"pids_max"`
}

type jsonWrite struct {
	Cgroup string `json:"cgroup"`
	File   string `json:"file"`
	Value  string `json:"value"`
	Why    string `json:"why"`
}

// WriteListJSON writes the profiles of s as JSON.
func WriteListJSON(out io.Writer, s *Set, h Host) error {
	list := jsonList{Schema: jsonSchema, File: s.File}
	for _, name := range s.order {
		j := jsonProfile{Name: name}
		p, err := s.Profile(name, h)
		if err == nil {
			j = toJSON(p)
			var m Machine
			if m, err = p.Resolve(Overrides{}, h); err == nil {
				j.Machine = m.toJSON()
			}
		}
		if err != nil {
			j.Error = err.Error()
		}
		list.Profiles = append(list.Profiles, j)
	}
	return writeJSON(out, list)
}

// WriteExplanationJSON writes what WriteExplanation does as JSON.
func WriteExplanationJSON(out io.Writer, m *Machine) error {
	e := jsonExplanation{Schema: jsonSchema, Profile: toJSON(m.Profile)}
	e.Profile.Machine = m.toJSON()
	for _, f := range m.Files() {
		e.Files = append(e.Files, jsonWrite(f))
	}
	return writeJSON(out, e)
}

func writeJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func toJSON(p *Profile) jsonProfile {
	j := jsonProfile{
		Name: p.Name, Family: p.Family, Title: p.Title, File: p.File, Line: p.Line, Extends: p.Extends,
		VCPUs: p.VCPUs, Nominal: p.Nominal, Memory: p.Memory, Basis: jsonBasis(p.Basis), Swap: p.Swap,
		Headroom: []jsonHeadroom{}, Source: jsonSource(p.Source),
		Workers: jsonWorkers{Text: p.Workers.String(), Auto: p.Workers.Auto, Count: p.Workers.Count, UpTo: p.Workers.UpTo, Light: p.Workers.Light},
	}
	for _, h := range p.Headroom {
		j.Headroom = append(j.Headroom, jsonHeadroom(h))
	}
	for _, e := range p.Expect {
		j.Expect = append(j.Expect, jsonExpect(e))
	}
	return j
}

func (m *Machine) toJSON() *jsonMachine {
	return &jsonMachine{
		Summary: m.Summary(), VCPUs: m.VCPUs, Memory: m.Memory, Budget: m.Budget, Swap: m.Swap, Pids: m.Pids,
		Workers: m.Workers, WorkerLimits: jsonLimits(m.Worker), Main: m.Main, Notes: m.Notes,
	}
}
