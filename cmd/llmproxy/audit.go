package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// auditFlags say how much an audit looks at.
type auditFlags struct {
	full   bool // every event, not only what came since the last audit
	noSink bool // nothing is posted or read at the sink
}

// auditor audits a suite.
type auditor struct {
	*suite
	auditFlags
	began   bool
	trusted int64    // events that audits before this one had found right
	full1st []string // faults of the full audit, which later rounds need not see
}

// verdict is what an audit found.
type verdict struct {
	rows, checked, trusted          int64
	teams                           []*billingv1.TeamBilling
	spend, billed, charged, carried money.NanoUSD
	posted, short, waiting          money.NanoUSD
	quarantined                     money.NanoUSD
	sink                            sinkState
	notes                           []string // about the sink
	faults                          []string
	pending                         []string // no fault, but not there yet
	moving                          bool     // another look may find less pending
}

func (v *verdict) fault(format string, args ...any) {
	v.faults = append(v.faults, fmt.Sprintf(format, args...))
}

func (v *verdict) wait(format string, args ...any) {
	v.pending = append(v.pending, fmt.Sprintf(format, args...))
}

func (v *verdict) note(format string, args ...any) {
	v.notes = append(v.notes, fmt.Sprintf(format, args...))
}

func audit(ctx context.Context, args []string) error {
	var f auditFlags
	s, rest, err := command("audit", args, func(fs *flag.FlagSet) {
		fs.BoolVar(&f.full, "full", false, "check every event from the beginning, not only what came since the last audit")
		fs.BoolVar(&f.noSink, "no-sink", false, "leave the sink out: nothing is posted there or read")
	})
	if err != nil {
		return err
	}
	defer s.close()
	if len(rest) > 0 {
		return usageError("llmproxy audit takes no arguments")
	}
	v, err := takeVerdict(ctx, s, f)
	if err != nil {
		return err
	}
	v.print()
	return v.err()
}

// takeVerdict audits the books until nothing in them is on its way any more, and
// then has the sink compared with them.
func takeVerdict(ctx context.Context, s *suite, f auditFlags) (*verdict, error) {
	a := &auditor{suite: s, auditFlags: f}
	v, err := a.settledBooks(ctx)
	if err != nil {
		return nil, err
	}
	sight, err := a.lookAtSink(ctx, v)
	if err != nil {
		return nil, err
	}
	if sight.doubts && v.sink.open() { // they may be posted now
		if v, err = a.settledBooks(ctx); err != nil {
			return nil, err
		}
	}
	v.faults, v.pending = append(v.faults, sight.faults...), append(v.pending, sight.pending...)
	v.notes = append(v.notes, sight.notes...)
	return v, nil
}

// settledBooks looks at the books again while traffic moves the sums.
func (a *auditor) settledBooks(ctx context.Context) (*verdict, error) {
	const attempts = 20
	for n := 1; ; n++ {
		v, err := a.books(ctx)
		if err != nil || !v.moving || n == attempts {
			return v, err
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// pause lets the workers get on.
func pause(ctx context.Context) error {
	t := time.NewTimer(250 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// progress tells who waits what takes its time.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "audit: "+format+"\n", args...) }

// err is nil if everything agrees.
func (v *verdict) err() error {
	if len(v.faults)+len(v.pending) == 0 {
		return nil
	}
	return fmt.Errorf("the sums do not agree: %d faults, %d still on their way", len(v.faults), len(v.pending))
}

func (v *verdict) print() {
	fmt.Printf("ledger    %d rows, $%s\n", v.rows, v.spend)
	fmt.Printf("events    $%s billed, $%s in quarantine (%d teams)\n", v.billed, v.quarantined, len(v.teams))
	fmt.Printf("events    %d checked, %d trusted from earlier audits\n", v.checked, v.trusted)
	fmt.Printf("charges   $%s charged, $%s carried\n", v.charged, v.carried)
	fmt.Printf("sink      $%s posted, $%s not taken, $%s wait\n", v.posted, v.short, v.waiting)
	for _, n := range v.notes {
		fmt.Printf("sink      %s\n", n)
	}
	for _, f := range v.faults {
		fmt.Printf("FAULT     %s\n", f)
	}
	for _, p := range v.pending {
		fmt.Printf("PENDING   %s\n", p)
	}
	switch {
	case v.err() != nil:
	case v.sink.configured:
		fmt.Println("verdict   the sums agree to the nano-dollar")
	default:
		fmt.Println("verdict   the books agree to the nano-dollar")
	}
}
