package serve

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Logger makes the service's logger: JSON lines on standard error, or where
// Config says. Each is written at once, but for those of Unhurried.
func Logger(cfg Config) *zap.Logger {
	level, err := zapcore.ParseLevel(cfg.LogLevel)
	if err != nil {
		level = zap.InfoLevel
	}
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	var to io.Writer = os.Stderr
	if cfg.LogTo != nil {
		to = cfg.LogTo
	}
	core := &lines{zapcore.NewCore(zapcore.NewJSONEncoder(enc), &held{to: to}, level), false}
	return zap.New(core).With(zap.String("service", cfg.Name), zap.Int("pid", os.Getpid()))
}

// Unhurried makes of Logger's logger one whose lines below a warning may be written up
// to a quarter of a second later, many at once: for a line that every request has. They
// keep their place among the others. The service must end with Sync; who kills it loses
// what was held.
func Unhurried(log *zap.Logger) *zap.Logger {
	return log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		if l, ok := c.(*lines); ok {
			return &lines{l.Core, true}
		}
		return c
	}))
}

// lines is a core that says which lines may be held.
type lines struct {
	zapcore.Core
	unhurried bool
}

// With implements zapcore.Core.
func (l *lines) With(fields []zapcore.Field) zapcore.Core {
	return &lines{l.Core.With(fields), l.unhurried}
}

// Check implements zapcore.Core.
func (l *lines) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if l.Enabled(e.Level) {
		return to.AddCore(e, l)
	}
	return to
}

// Write implements zapcore.Core.
func (l *lines) Write(e zapcore.Entry, fields []zapcore.Field) error {
	err := l.Core.Write(e, fields)
	if l.unhurried && e.Level < zapcore.WarnLevel {
		return err
	}
	return errors.Join(err, l.Sync())
}

const (
	holdTime = 250 * time.Millisecond // that a line is held at most
	holdMost = 32 << 10               // bytes that are held at most
)

// held writes what it was given when it has enough, when that was given long ago, and
// at Sync.
type held struct {
	to io.Writer

	mu    sync.Mutex
	lines []byte
	due   *time.Timer // flushes; nil: nothing was ever held
}

// Write implements zapcore.WriteSyncer.
func (h *held) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.lines) == 0 {
		if h.due == nil {
			h.due = time.AfterFunc(holdTime, func() { h.Sync() }) //nolint:errcheck // there is nobody to tell
		} else {
			h.due.Reset(holdTime)
		}
	}
	h.lines = append(h.lines, p...)
	if len(h.lines) < holdMost {
		return len(p), nil
	}
	return len(p), h.flush()
}

// Sync implements zapcore.WriteSyncer. What is on standard error need not be synced.
func (h *held) Sync() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.flush()
}

// flush needs mu.
func (h *held) flush() error {
	if len(h.lines) == 0 {
		return nil
	}
	_, err := h.to.Write(h.lines)
	h.lines = h.lines[:0]
	return err
}
