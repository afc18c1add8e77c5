package serve

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// TestUnhurriedLines says when lines are written, and that they keep their order.
func TestUnhurriedLines(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]struct {
		do   func(log, unhurried *zap.Logger)
		want string // what is there at once
	}{
		"others are written at once": {func(log, _ *zap.Logger) { log.Info("a") }, "a"},
		"they are held":              {func(_, unhurried *zap.Logger) { unhurried.Info("a") }, ""},
		"with fields too":            {func(_, unhurried *zap.Logger) { unhurried.With(zap.Int("n", 1)).Info("a") }, ""},
		"a warning is not":           {func(_, unhurried *zap.Logger) { unhurried.Info("a"); unhurried.Warn("b") }, "ab"},
		"another line takes them with it": {
			func(log, unhurried *zap.Logger) { unhurried.Info("a"); log.Info("b"); unhurried.Info("c") }, "ab",
		},
		"Sync writes them": {func(_, unhurried *zap.Logger) { unhurried.Info("a"); unhurried.Sync() }, "a"}, //nolint:errcheck // it writes to memory
		"a quarter of a second does": {
			func(_, unhurried *zap.Logger) { unhurried.Info("a"); sleep(holdTime) }, "a",
		},
		"and the next one": {
			func(_, unhurried *zap.Logger) {
				unhurried.Info("a")
				sleep(holdTime)
				unhurried.Info("b")
				sleep(holdTime)
			}, "ab",
		},
		"so does a full buffer": {
			func(_, unhurried *zap.Logger) {
				unhurried.Info("a", zap.String("text", strings.Repeat(".", holdMost)))
				unhurried.Info("b")
			}, "a",
		},
		"what is below the level is not there": {func(_, unhurried *zap.Logger) { unhurried.Debug("a"); unhurried.Warn("b") }, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var out lockedBuffer
				log := Logger(Config{Name: "testsvc", LogLevel: "info", LogTo: &out})
				write.do(log, Unhurried(log))
				got := ""
				for line := range strings.Lines(out.String()) {
					_, msg, _ := strings.Cut(line, `"msg":"`)
					got += msg[:1]
				}
				if got != write.want {
					t.Errorf("written: %q, want %q", got, write.want)
				}
			})
		})
	}
}

// sleep lets the time of a bubble pass, and what it is due for happen.
func sleep(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
