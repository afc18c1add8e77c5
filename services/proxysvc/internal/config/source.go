package config

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"os"
	"time"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// Source is where the configuration comes from. Load and Watch may not run at the
// same time.
type Source struct {
	Path    string // of config.yaml; empty: Default is used
	Secrets Secrets
	Book    *pricing.Book

	applied, seen fingerprint // of the last good configuration, and of the last one
}

// fingerprint tells whether anything that a configuration was made of has changed: the
// file's bytes and every variable that was looked up.
type fingerprint [sha256.Size]byte

// Load reads the configuration. What Watch later takes for a change is what
// differs from it.
func (s *Source) Load() (Config, error) {
	cfg, p, err := s.read()
	s.seen = p
	if err == nil {
		s.applied = p
	}
	return cfg, err
}

// Watch reads the configuration again at every tick and whenever hup says so, until
// the context ends. A good one that differs from the one in force goes to apply; a
// bad one goes to refused, once, and the one before stays in force. On hup it goes
// to one of them in any case: somebody waits for an answer. Both are called one
// after the other, never at once.
//
// Contents are compared, never times, so that a replaced symbolic link, as
// Kubernetes has them, and a quick second write are seen. A file that is missing
// for a moment is a bad configuration until it is back.
func (s *Source) Watch(ctx context.Context, tick <-chan time.Time, hup <-chan os.Signal, apply func(Config), refused func(error)) error {
	for {
		asked, ok := false, true
		select {
		case <-ctx.Done():
			return nil
		case _, ok = <-tick:
			if !ok {
				tick = nil
			}
		case _, ok = <-hup:
			if asked = ok; !ok {
				hup = nil
			}
		}
		if ok && ctx.Err() == nil {
			s.look(asked, apply, refused)
		}
	}
}

// look is one look of Watch.
func (s *Source) look(asked bool, apply func(Config), refused func(error)) {
	cfg, p, err := s.read()
	changed := p != s.seen
	s.seen = p
	switch {
	case err != nil:
		if changed || asked {
			refused(err)
		}
	case p != s.applied || asked:
		s.applied = p
		apply(cfg)
	}
}

// read makes the configuration, and the fingerprint of what it is made of.
func (s *Source) read() (Config, fingerprint, error) {
	sum := sha256.New()
	text := Default
	if s.Path != "" {
		var err error
		if text, err = os.ReadFile(s.Path); err != nil {
			err = fmt.Errorf("config.yaml: %w", err)
			add(sum, err.Error())
			return Config{}, fingerprint(sum.Sum(nil)), err
		}
	}
	add(sum, string(text))
	cfg, err := Read(text, func(name string) (string, error) {
		v, err := s.Secrets.Get(name)
		add(sum, name)
		add(sum, v)
		add(sum, fmt.Sprint(err))
		return v, err
	}, s.Book)
	return cfg, fingerprint(sum.Sum(nil)), err
}

// add hashes a text and where it ends.
func add(sum hash.Hash, text string) {
	sum.Write(binary.AppendUvarint(nil, uint64(len(text)))) // a hash never fails
	sum.Write([]byte(text))
}
