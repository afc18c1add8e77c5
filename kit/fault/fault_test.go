package fault

import (
	"errors"
	"fmt"
	"testing"
)

func TestWrapShowsItsTextAndKeepsItsCause(t *testing.T) {
	t.Parallel()
	cause := errors.New("password authentication failed for user x")
	err := fmt.Errorf("find key: %w", Wrap(Unavailable, cause, "the key store is down"))
	if got := Text(err); got != "the key store is down" {
		t.Errorf("Text = %q", got)
	}
	if KindOf(err) != Unavailable || !errors.Is(err, cause) {
		t.Errorf("KindOf = %v, Is(cause) = %v, want Unavailable, true", KindOf(err), errors.Is(err, cause))
	}
	if got, want := Cause(err), "find key: the key store is down: password authentication failed for user x"; got != want {
		t.Errorf("Cause = %q, want %q", got, want)
	}
}

func TestUnknownErrorsSayNothing(t *testing.T) {
	t.Parallel()
	err := errors.New("relation keys.keys does not exist")
	if KindOf(err) != Internal || Text(err) != "internal error" {
		t.Errorf("got %v %q, want Internal, internal error", KindOf(err), Text(err))
	}
}
