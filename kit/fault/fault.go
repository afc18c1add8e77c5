// Package fault names the errors that a caller can act on. A domain makes them;
// kit/serve alone turns them into gRPC codes. Their text is safe to show: it
// never holds a secret, a driver's message or another caller's data.
package fault

import (
	"errors"
	"fmt"
	"strings"
)

// Kind says what the caller can do about an error.
type Kind uint8

// The kinds. Internal is the kind of every error that has no other.
const (
	Internal        Kind = iota
	Invalid              // the request is wrong: change it
	NotFound             // what it names does not exist
	Exists               // what it makes exists already
	Conflict             // it changed meanwhile: read again, then retry
	Precondition         // the system is not in a state for it
	Denied               // the caller may not do it
	Unauthenticated      // the caller is not known
	Exhausted            // a limit is reached: retry later
	Unavailable          // something it needs is down: retry later
	DataLoss             // stored data is missing or broken
)

// Error is a fault with a text that is safe to show.
type Error struct {
	Kind Kind
	text string
	err  error
}

// Errorf makes a fault. Like fmt.Errorf it wraps an error given for %w, whose
// text then is part of what is shown.
func Errorf(k Kind, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: k, text: err.Error(), err: errors.Unwrap(err)}
}

// Wrap makes a fault with a text of its own; the cause is kept for logs and
// errors.Is and is never shown.
func Wrap(k Kind, cause error, text string) error {
	return &Error{Kind: k, text: text, err: cause}
}

// Error returns the text that is safe to show.
func (e *Error) Error() string { return e.text }

// Unwrap returns the cause, or nil.
func (e *Error) Unwrap() error { return e.err }

// KindOf returns the kind of the outermost fault in err's chain; Internal when
// there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// Text returns the text of the outermost fault in err's chain, without what was
// wrapped around it; "internal error" when there is none.
func Text(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.text
	}
	return "internal error"
}

// Cause describes err with what Wrap hid, for logs.
func Cause(err error) string {
	text := err.Error()
	if e, ok := errors.AsType[*Error](err); ok && e.err != nil && !strings.Contains(text, e.err.Error()) {
		return text + ": " + e.err.Error()
	}
	return text
}
