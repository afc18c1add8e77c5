package openai

import (
	"errors"
	"fmt"
	"time"
)

// flow sends the events of a stream, does what its script wants between them and
// keeps its ledger entry true to what was sent.
type flow struct {
	c      *call
	book   *book
	id     string
	script script
	delay  time.Duration

	sent  int64 // deltas
	usage Usage // as it stands
}

// newFlow begins a stream whose reasoning is done by now, and books it.
func (s *Server) newFlow(c *call, t *turn, e Entry) *flow {
	f := &flow{c: c, book: &s.book, id: e.ID, script: t.script, delay: s.opts.ChunkDelay, usage: e.Usage}
	if t.script.delayMillis >= 0 {
		f.delay = millis(t.script.delayMillis)
	}
	h := c.w.Header()
	h.Set("content-type", "text/event-stream; charset=utf-8")
	h.Set("cache-control", "no-cache")
	e.RequestID, e.Model, e.Stream = c.requestID, t.model.dated, true
	s.book.addEntry(e)
	return f
}

// end books how a stream ended, given the error of whoever ran it. sayError
// tells the client of errStreamError and errFailed; that comes after the
// booking, so that a client that has it finds the entry as it stays.
func (f *flow) end(err error, sayError func(error) error) error {
	if err == nil {
		return nil
	}
	f.book.broken(f.id, err)
	switch {
	case errors.Is(err, errStreamError), errors.Is(err, errFailed):
		_ = sayError(err) // the client may be gone; the stream failed before
	case errors.Is(err, errCut):
		f.c.drop()
	}
	return err
}

// delta sends one delta that brings tokens, unless a fault is due.
func (f *flow) delta(tokens int64, name string, v any) error {
	if err := f.fault(false); err != nil {
		return err
	}
	if err := pause(f.c.r.Context(), f.delay); err != nil {
		return err
	}
	if err := f.send(name, v); err != nil {
		return err
	}
	f.sent++
	f.usage.OutputTokens += tokens
	f.book.update(f.id, func(e *Entry) { e.Usage = f.usage })
	return nil
}

// fault returns why the stream ends at this point, if its script wants that. At
// the end of the answer everything that has not come yet is due.
func (f *flow) fault(atEnd bool) error {
	due := func(after int64) bool { return after == f.sent || (atEnd && after > f.sent) }
	switch sc := f.script; {
	case due(sc.cutAfter):
		return errCut
	case due(sc.stallAfter):
		<-f.c.r.Context().Done()
		return errStalled
	case due(sc.streamErrorAfter):
		return errStreamError
	case due(sc.failAfter):
		return errFailed
	}
	return nil
}

// reporting books that send sends the usage, unless it fails. Like finished it
// comes before what the client sees.
func (f *flow) reporting(send func() error) error {
	f.book.update(f.id, func(e *Entry) { e.Reported = true })
	err := send()
	if err != nil {
		f.book.update(f.id, func(e *Entry) { e.Reported = false })
	}
	return err
}

func (f *flow) finished() { f.book.update(f.id, func(e *Entry) { e.Finished = true }) }

func (f *flow) send(name string, v any) error {
	data, err := encode(v)
	if err != nil {
		return fmt.Errorf("event %s: %w", name, err)
	}
	return f.sendRaw(name, data)
}

// sendRaw sends one event. A client that is gone is errAborted.
func (f *flow) sendRaw(name string, data []byte) error {
	if f.c.r.Context().Err() != nil {
		return errAborted
	}
	return f.c.event(name, data)
}

// obfuscation is the padding that the real API adds to deltas, so that their
// length tells less. Here it depends on the text alone.
func obfuscation(text string) string {
	const pad = "AbCdEfGhIjKlMnOp"
	return pad[:max(1, len(pad)-len(text)%len(pad))]
}
