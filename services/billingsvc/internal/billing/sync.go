package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Log is one proxysvc process's part of the ledger.
type Log struct {
	LogID   int64
	LastSeq int64
	Closed  bool // nothing will be added
}

// Cursor is how far a log has been billed.
type Cursor struct {
	LogID  int64
	Seq    int64
	Closed bool // the log was closed and everything in it is billed
}

// SpendLog reads the ledger.
type SpendLog interface {
	// Logs lists some logs after a log_id, in order of log_id. None: there are
	// no more.
	Logs(ctx context.Context, afterLogID int64) ([]Log, error)
	// Read reads some of a log's rows after a seq.
	Read(ctx context.Context, logID, afterSeq int64) (Page, error)
}

// Books is where a page is written.
type Books interface {
	Cursors(ctx context.Context) (map[int64]Cursor, error)
	// Book writes a draft in one transaction: cursor, events, charges, balances
	// and quarantine, or nothing. It writes nothing when another replica has
	// the log or has moved its cursor.
	Book(ctx context.Context, d Draft, rules Rules, now time.Time) (Booked, error)
	// FreezeCarried freezes what teams carry and returns how many charges that
	// made.
	FreezeCarried(ctx context.Context, rules Rules, now time.Time) (int64, error)
}

// Booked tells what Book did.
type Booked struct {
	// Held: another replica has the log now. Moved: the cursor is at Seq and
	// not where the draft's page began. In both cases nothing was written.
	Held, Moved bool
	Seq         int64 // the cursor
	Result
}

// Result counts what a sync did.
type Result struct {
	Rows, Events, Charges, Quarantined int64
}

func (r *Result) add(o Result) {
	r.Rows += o.Rows
	r.Events += o.Events
	r.Charges += o.Charges
	r.Quarantined += o.Quarantined
}

// Sync bills every log to its end. A log with a fault of its own, such as a
// hole, is left where it is and the others go on; the error names them all.
// Repeating is always harmless. Within a process syncs take turns, so that a
// caller finds everything billed that was on the ledger when it called, unless
// another replica is still at it.
func (s *Service) Sync(ctx context.Context) (Result, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	sum, err := s.syncLogs(ctx)
	s.wake()
	if ctx.Err() != nil {
		return sum, err
	}
	// What was recorded since the last sync, or was left over.
	charges, freezing := s.store.FreezeCarried(ctx, s.rules, s.now())
	sum.Charges += charges
	return sum, errors.Join(err, freezing)
}

func (s *Service) syncLogs(ctx context.Context) (Result, error) {
	var sum Result
	cursors, err := s.store.Cursors(ctx)
	if err != nil {
		return sum, err
	}
	var faults []error
	for after := int64(0); ; {
		logs, err := s.spend.Logs(ctx, after)
		if err != nil || len(logs) == 0 {
			return sum, errors.Join(append(faults, err)...)
		}
		for _, l := range logs {
			after = l.LogID
			r, err := s.syncLog(ctx, l, cursors[l.LogID])
			sum.add(r)
			if err == nil {
				continue
			}
			faults = append(faults, fmt.Errorf("sync log %d: %w", l.LogID, err))
			if ctx.Err() != nil || fault.KindOf(err) == fault.Unavailable {
				return sum, errors.Join(faults...) // so it would be for the other logs
			}
		}
	}
}

func (s *Service) syncLog(ctx context.Context, l Log, c Cursor) (Result, error) {
	var sum Result
	if c.Seq == l.LastSeq && c.Closed == l.Closed {
		return sum, nil
	}
	for seq := c.Seq; ; {
		page, err := s.read(ctx, l.LogID, seq)
		if err != nil && len(page.Rows) == 0 {
			return sum, err // rows before a hole are billed first
		}
		if len(page.Rows) == 0 && !page.Drained() {
			return sum, nil
		}
		booked, err := s.book(ctx, page)
		if err != nil || booked.Held {
			return sum, err
		}
		sum.add(booked.Result)
		seq = booked.Seq
		if !booked.Moved && seq >= page.LastSeq {
			return sum, nil
		}
	}
}

// read reads pages of a log, one after another, until they are a batch or the
// log ends. Together they are one page. With an error it returns what was good
// before it.
func (s *Service) read(ctx context.Context, logID, seq int64) (Page, error) {
	all := Page{LogID: logID, AfterSeq: seq, LastSeq: seq}
	for {
		page, err := s.spend.Read(ctx, logID, all.EndSeq())
		if err != nil {
			return all, err
		}
		if err := page.Check(); err != nil {
			return all, err
		}
		all.Rows = append(all.Rows, page.Rows...)
		all.LastSeq, all.Closed = page.LastSeq, page.Closed
		if len(page.Rows) == 0 || all.EndSeq() >= all.LastSeq || len(all.Rows) >= s.batch {
			return all, nil
		}
	}
}

func (s *Service) book(ctx context.Context, page Page) (Booked, error) {
	t, err := s.tariffOf(ctx, page.Rows)
	if err != nil {
		return Booked{}, err
	}
	now := s.now()
	return s.store.Book(ctx, t.Draft(page, now), s.rules, now)
}
