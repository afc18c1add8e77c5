package main

import (
	"errors"
	"flag"
	"io"
	"path/filepath"
	"strings"
	"time"
)

// settings say how much is measured.
type settings struct {
	Bench   []string // names of scenarios; empty: the standard ones
	Targets []string // of those that a scenario compares; empty: all
	Rounds  int
	Measure time.Duration // of one target in one round
	Keys    int           // loaded before anything is measured
	Out     string        // where the report goes
	Commit  string        // what is measured, for the report
	Profile string        // directory for profiles of proxysvc; empty: none
	PGO     string        // file for a profile that the compiler takes; empty: none
	Env     []string      // more variables for proxysvc
	// Postgres has settings of Postgres that are not its defaults.
	Postgres []string
}

func parseSettings(args []string, usage io.Writer) (settings, error) {
	var set settings
	var names, targets string
	var seconds int
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(usage)
	f.StringVar(&names, "run", "", "scenarios, or beginnings of their names, separated by commas; empty: the standard ones")
	f.StringVar(&targets, "targets", "", "measure only these of what a scenario compares, separated by commas: direct, nginx, ReverseProxy, Portkey, proxysvc")
	f.IntVar(&set.Rounds, "rounds", 3, "how often every target is measured")
	f.IntVar(&seconds, "seconds", 10, "how long each time; rows are counted every ten seconds, which a shorter one has or has not")
	f.IntVar(&set.Keys, "keys", 20_000, "virtual keys that are loaded")
	f.StringVar(&set.Out, "out", filepath.Join("docs", "bench"), "directory of the report")
	f.StringVar(&set.Commit, "commit", "", "what is measured, for the report")
	f.StringVar(&set.Profile, "profile", "", "directory for profiles of proxysvc in every scenario, made with perf and strace; empty: none")
	f.StringVar(&set.PGO, "pgo", "", "file for a CPU profile of proxysvc over all scenarios, as go build takes it (default.pgo); empty: none")
	f.Func("env", "NAME=VALUE for proxysvc, such as GOGC=400 or another setting; may be repeated", func(v string) error {
		set.Env = append(set.Env, v)
		return nil
	})
	f.Func("postgres", "name=value for Postgres, such as shared_buffers=1GB; may be repeated", func(v string) error {
		if !strings.Contains(v, "=") {
			return errors.New("name=value is needed")
		}
		set.Postgres = append(set.Postgres, v)
		return nil
	})
	if err := f.Parse(args); err != nil {
		return set, err
	}
	set.Measure = time.Duration(seconds) * time.Second
	set.Bench, set.Targets = list(names), list(targets)
	if set.Rounds < 1 || seconds < 1 || set.Keys < 100 || f.NArg() > 0 {
		return set, errors.New("rounds and seconds must be at least 1, keys at least 100, and there are no arguments")
	}
	return set, nil
}

// list splits a list at its commas.
func list(text string) (names []string) {
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}
