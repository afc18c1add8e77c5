// Package env reads settings from the environment and reports every fault at
// once, each with the name of its variable.
package env

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Reader reads variables through Get. Its methods return the setting, or the
// zero value after noting a fault; Err returns all faults.
type Reader struct {
	Get    func(string) string
	seen   []string
	faults []error
}

// Names returns the variables that were read, in order.
func (r *Reader) Names() []string { return r.seen }

// Err returns every fault, one line each, or nil.
func (r *Reader) Err() error { return errors.Join(r.faults...) }

// Fault notes a fault of a variable that a caller found.
func (r *Reader) Fault(name, format string, args ...any) {
	r.faults = append(r.faults, fmt.Errorf("%s: %s", name, fmt.Sprintf(format, args...)))
}

func (r *Reader) lookup(name string) string {
	r.seen = append(r.seen, name)
	return strings.TrimSpace(r.Get(name))
}

// String returns a variable, or def when it is not set.
func (r *Reader) String(name, def string) string {
	if v := r.lookup(name); v != "" {
		return v
	}
	return def
}

// Need returns a variable that must be set. hint says what belongs there.
func (r *Reader) Need(name, hint string) string {
	v := r.lookup(name)
	if v == "" {
		r.Fault(name, "not set; it needs %s", hint)
	}
	return v
}

// List returns the comma-separated parts of a variable, without empty ones.
func (r *Reader) List(name string) []string {
	var out []string
	for part := range strings.SplitSeq(r.lookup(name), ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// Duration returns a positive duration such as "30s".
func (r *Reader) Duration(name string, def time.Duration) time.Duration {
	v := r.lookup(name)
	if v == "" {
		return def
	}
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		r.Fault(name, "%q is not a positive duration such as 100ms, 30s or 5m", v)
		return def
	}
	return d
}

// Int returns a whole number from lowest to highest.
func (r *Reader) Int(name string, def, lowest, highest int) int {
	v := r.lookup(name)
	if v == "" {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < lowest || n > highest {
		r.Fault(name, "%q is not a whole number from %d to %d", v, lowest, highest)
		return def
	}
	return n
}

// OneOf returns one of the allowed values.
func (r *Reader) OneOf(name, def string, allowed ...string) string {
	v := r.lookup(name)
	if v == "" {
		return def
	}
	for _, a := range allowed {
		if v == a {
			return v
		}
	}
	r.Fault(name, "%q is not one of %s", v, strings.Join(allowed, ", "))
	return def
}
