package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report collects what was measured.
type report struct {
	stand     *stand
	set       settings
	scenarios []scenario
	rounds    map[string][]round // by scenario
	lines     []line             // what was measured besides
	audited   bool
	spoilt    bool     // the ledger cannot be audited any more
	faults    []string // of the ledger's audit
}

// measure measures one scenario.
func (r *report) measure(ctx context.Context, sc scenario) error {
	if sc.other != nil {
		say("%s: %s", sc.name, sc.about)
		lines, err := sc.other(ctx, r.stand)
		for i := range lines {
			lines[i].scenario = sc.name
		}
		r.lines = append(r.lines, lines...)
		return err
	}
	if sc.spoils {
		if err := r.audit(ctx); err != nil {
			return err
		}
	}
	rounds, err := r.stand.run(ctx, sc)
	if err != nil {
		return err
	}
	r.scenarios = append(r.scenarios, sc)
	r.rounds[sc.name] = rounds
	r.spoilt = r.spoilt || sc.spoils
	return nil
}

// audit checks the ledger once, as long as that can be done.
func (r *report) audit(ctx context.Context) (err error) {
	if r.audited || r.spoilt {
		return nil
	}
	r.audited = true
	r.faults, err = r.stand.audit(ctx)
	return err
}

// markdown is the report as a document, the table first.
func (r *report) markdown(ctx context.Context) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Measured on %s\n\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	b.WriteString(r.machine(ctx))
	b.WriteString("\n## What must hold\n\n")
	b.WriteString(r.table())
	b.WriteString(r.rest())
	b.WriteString("\n## By scenario\n\nMedians of the rounds, with the least and the greatest; CPU and latency in µs, memory in MB.\n")
	for _, sc := range r.scenarios {
		b.WriteString("\n" + r.section(sc))
	}
	return b.String()
}

// table is what must hold, and whether it does.
func (r *report) table() string {
	var b strings.Builder
	b.WriteString("| figure | scenario | must | aim | median (min–max) | |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, m := range musts() {
		var values []float64
		for _, round := range r.rounds[m.scenario] {
			if v, ok := m.value(round); ok {
				values = append(values, v)
			}
		}
		if len(values) == 0 {
			continue // it was not chosen
		}
		s := spreadOf(values)
		unit := strings.TrimSpace(" " + m.unit)
		if m.must == 0 {
			fmt.Fprintf(&b, "| %s | %s | – | – | %s %s | |\n", m.figure, m.scenario, s, unit)
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | ≤ %v %s | ≤ %v %s | %s %s | %s |\n", m.figure, m.scenario, m.must, unit, m.aim, unit, s, unit, verdict(s.median, m.must, m.aim))
	}
	if n := r.stand.allocs; n != "" {
		state := "pass, aim met"
		if n != "0" {
			state = "**MISS**"
		}
		fmt.Fprintf(&b, "| allocations per streamed delta | delta | 0 | 0 | %s | %s |\n", n, state)
	}
	for _, l := range r.lines {
		if p99 := l.times.At(0.99); l.most > 0 {
			fmt.Fprintf(&b, "| %s, p99 | %s | ≤ %s | ≤ %s | %s | %s |\n", l.what, l.scenario, l.most, l.most, short(p99), verdict(p99, l.most, l.most))
		}
	}
	bad := r.broken()
	state := "pass"
	if len(bad) > 0 {
		state = "**MISS**: " + strings.Join(bad, "; ")
	}
	fmt.Fprintf(&b, "| errors, lost, doubled or wrongly priced rows | all %d | 0 | 0 | %d | %s |\n", len(r.scenarios), len(bad), state)
	return b.String()
}

func verdict[T cmp.Ordered](v, must, aim T) string {
	switch {
	case v <= aim:
		return "pass, aim met"
	case v <= must:
		return "pass"
	default:
		return "**MISS**"
	}
}

// broken names every scenario with an error or a wrong ledger.
func (r *report) broken() []string {
	var out []string
	for _, sc := range r.scenarios {
		for _, round := range r.rounds[sc.name] {
			for name, f := range round {
				if !isOurs(name) || f.failed+f.lost+f.doubled+f.wrong == 0 {
					continue
				}
				out = append(out, fmt.Sprintf("%s, %s: %d failed (%s), %d lost, %d doubled, %d with a wrong cost", sc.name, name, f.failed, f.error, f.lost, f.doubled, f.wrong))
			}
		}
	}
	for _, fault := range r.faults {
		out = append(out, "audit: "+fault)
	}
	return out
}

// isOurs says whether a subject of a scenario is proxysvc.
func isOurs(name string) bool {
	return !slices.Contains([]string{direct, nginx, reverse, portkey}, name)
}

// rest is the table of what was measured besides.
func (r *report) rest() string {
	if len(r.lines) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n## The rest\n\n| what | a second | p50 | p99 | service CPU each | Postgres CPU each | what bounds it |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, l := range r.lines {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.0f µs | %.0f µs | %s |\n", l.what, digits(l.rate), short(l.times.At(0.5)), short(l.times.At(0.99)),
			micros(l.service), micros(l.db), l.bound)
	}
	return b.String()
}

// section is one scenario, by target.
func (r *report) section(sc scenario) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s: %s\n\n| target | proxy CPU | + database | requests/s | first byte p50 | whole p50 | whole p99 |", sc.name, sc.about)
	if sc.stream {
		b.WriteString(" delta lag p50 | p99 | end p50 | p99 |")
	}
	b.WriteString(" memory | failed |\n| --- | --- | --- | --- | --- | --- | --- |")
	if sc.stream {
		b.WriteString(" --- | --- | --- | --- |")
	}
	b.WriteString(" --- | --- |\n")
	names := slices.Clone(sc.targets)
	for _, v := range sc.variants {
		names = append(names, v.name)
	}
	for _, name := range names {
		of := func(f field) spread {
			var values []float64
			for _, round := range r.rounds[sc.name] {
				values = append(values, f(round[name]))
			}
			return spreadOf(values)
		}
		µs := func(f func(*figures) time.Duration) field { return func(x *figures) float64 { return micros(f(x)) } }
		columns := []spread{
			of(µs(func(f *figures) time.Duration { return f.proxy })), of(µs((*figures).total)), of(func(f *figures) float64 { return f.rate }),
			of(µs(func(f *figures) time.Duration { return f.ttfb.At(0.5) })), of(µs(func(f *figures) time.Duration { return f.whole.At(0.5) })),
			of(µs(func(f *figures) time.Duration { return f.whole.At(0.99) })),
		}
		if sc.stream {
			columns = append(columns,
				of(µs(func(f *figures) time.Duration { return f.lag.At(0.5) })), of(µs(func(f *figures) time.Duration { return f.lag.At(0.99) })),
				of(µs(func(f *figures) time.Duration { return f.last.At(0.5) })), of(µs(func(f *figures) time.Duration { return f.last.At(0.99) })))
		}
		fmt.Fprintf(&b, "| %s |", name)
		for _, c := range columns {
			fmt.Fprintf(&b, " %s |", c)
		}
		memory, failed := of(memoryUsed), of(func(f *figures) float64 { return float64(f.failed) })
		fmt.Fprintf(&b, " %.0f | %.0f |\n", memory.median/(1<<20), failed.most)
	}
	return b.String()
}

// machine says where and what was measured.
func (r *report) machine(ctx context.Context) string {
	var postgres string
	_ = r.stand.db.QueryRow(ctx, `select split_part(version(), ' (', 1) || ', shared_buffers ' || current_setting('shared_buffers')`).Scan(&postgres) // without it there is a hole in the text
	line := func(name, value string) string { return "- " + name + ": " + strings.TrimSpace(value) + "\n" }
	return line("commit", r.set.Commit) +
		line("machine", fmt.Sprintf("%d cores, %s, Linux %s", runtime.NumCPU(), cpuModel(), output(ctx, "uname", "-r"))) +
		line("software", fmt.Sprintf("%s, %s, %s, Node.js %s, Portkey %s", runtime.Version(), postgres, output(ctx, "/usr/sbin/nginx", "-v"), output(ctx, "node", "--version"), portkeyVersion)) +
		line("load before it began", r.stand.loadAverage) +
		line("rounds", fmt.Sprintf("%d of %s for each target, in turn, every second one backwards", r.set.Rounds, r.set.Measure)) +
		line("layout", fmt.Sprintf("the proxy on core %s; load, upstream and keysvc on core %s; Postgres anywhere, fsync and synchronous_commit on; %d keys and %d teams; %s",
			proxyCores, loadCores, r.set.Keys, teams, cmp.Or(strings.Join(slices.Concat(r.set.Env, r.set.Postgres), " "), "no setting besides the defaults")))
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // as above
	_, rest, _ := strings.Cut(string(text), "model name")
	name, _, _ := strings.Cut(rest, "\n")
	return strings.Trim(name, "\t: ")
}

func output(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return name + " (unknown)"
	}
	return strings.TrimSpace(string(out))
}

// write puts the report where reports are kept, named by its day and commit.
func (r *report) write(text string) error {
	if err := os.MkdirAll(r.set.Out, 0o755); err != nil {
		return err
	}
	name := time.Now().UTC().Format(time.DateOnly)
	if r.set.Commit != "" {
		name += "-" + r.set.Commit
	}
	file := filepath.Join(r.set.Out, name+".md")
	say("written: %s", file)
	return os.WriteFile(file, []byte(text), 0o644)
}
