package config

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// watched is a Watch that a test drives, in a bubble: after each event the test
// goes on when the watch waits for the next one.
type watched struct {
	tick chan time.Time
	hup  chan os.Signal
	done []string // "NAME KEY" of what was applied, "refused: …"
}

// watch loads a source, watches it while drive runs, and compares what it did.
func watch(t *testing.T, s *Source, drive func(*watched), want ...string) {
	t.Helper()
	if _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	w := &watched{}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w.tick, w.hup = make(chan time.Time), make(chan os.Signal)
		go func() {
			if err := s.Watch(ctx, w.tick, w.hup, w.apply, w.refused); err != nil {
				t.Errorf("Watch = %v, want nil at its end", err)
			}
		}()
		drive(w)
		synctest.Wait()
		cancel()
	})
	if len(w.done) != len(want) {
		t.Fatalf("Watch did %q, want %q", w.done, want)
	}
	for i := range want {
		if !strings.HasPrefix(w.done[i], want[i]) {
			t.Errorf("Watch did %q, want %q", w.done[i], want[i])
		}
	}
}

func (w *watched) apply(c Config) {
	d := c.Routing.Deployments[0]
	w.done = append(w.done, d.ModelName+" "+d.APIKey.Reveal())
}

func (w *watched) refused(err error) { w.done = append(w.done, "refused: "+err.Error()) }

// look has the watch look twice: what was told once must not be told again.
func (w *watched) look() {
	for range 2 {
		w.tick <- time.Time{}
		synctest.Wait()
	}
}

// ask sends a hang-up.
func (w *watched) ask() {
	w.hup <- syscall.SIGHUP
	synctest.Wait()
}

func named(name string) string {
	return "model_list: [{model_name: " + name + ", litellm_params: {model: claude-opus-5}}]\n"
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// source is a source with a file and a directory of secrets.
func source(t *testing.T) *Source {
	t.Helper()
	dir := t.TempDir()
	s := &Source{
		Path: filepath.Join(dir, "config.yaml"), Book: book(t),
		Secrets: Secrets{Getenv: func(string) string { return "" }, Dir: filepath.Join(dir, "secrets")},
	}
	if err := os.Mkdir(s.Secrets.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, s.Path, named("one"))
	write(t, filepath.Join(s.Secrets.Dir, "ANTHROPIC_API_KEY"), "k1\n")
	return s
}

func TestAChangedFileIsAppliedOnce(t *testing.T) {
	t.Parallel()
	s := source(t)
	watch(t, s, func(w *watched) {
		w.look()
		write(t, s.Path, named("two"))
		w.look()
	}, "two k1")
}

func TestASecondWriteInTheSameInstantIsSeen(t *testing.T) {
	t.Parallel()
	s := source(t)
	before, err := os.Stat(s.Path)
	if err != nil {
		t.Fatal(err)
	}
	watch(t, s, func(w *watched) {
		write(t, s.Path, named("two"))
		if err := os.Chtimes(s.Path, before.ModTime(), before.ModTime()); err != nil {
			t.Fatal(err)
		}
		w.look()
	}, "two k1")
}

func TestARotatedKeyIsApplied(t *testing.T) {
	t.Parallel()
	s := source(t)
	watch(t, s, func(w *watched) {
		write(t, filepath.Join(s.Secrets.Dir, "ANTHROPIC_API_KEY"), "k2")
		w.look()
	}, "one k2")
}

// TestASwappedLinkIsSeen: Kubernetes mounts files as links into a directory, and
// replaces the link to that directory.
func TestASwappedLinkIsSeen(t *testing.T) {
	t.Parallel()
	s := source(t)
	mount := t.TempDir()
	for version, name := range map[string]string{"v1": "one", "v2": "two"} {
		if err := os.Mkdir(filepath.Join(mount, version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(mount, version, "config.yaml"), named(name))
	}
	link := func(to, at string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(mount, at)); err != nil {
			t.Fatal(err)
		}
	}
	link("v1", "..data")
	link("..data/config.yaml", "config.yaml")
	s.Path = filepath.Join(mount, "config.yaml")
	watch(t, s, func(w *watched) {
		link("v2", "..new")
		if err := os.Rename(filepath.Join(mount, "..new"), filepath.Join(mount, "..data")); err != nil {
			t.Fatal(err)
		}
		w.look()
	}, "two k1")
}

func TestABadFileIsRefusedOnceAndTheOldOneStays(t *testing.T) {
	t.Parallel()
	s := source(t)
	watch(t, s, func(w *watched) {
		write(t, s.Path, "model_list: []\n")
		w.look()
		write(t, s.Path, "model_list: [\n")
		w.look()
		write(t, s.Path, named("one")) // as it was: nothing to apply
		w.look()
		write(t, s.Path, named("two"))
		w.look()
	}, "refused: config.yaml:1:1: model_list: is empty", "refused: config.yaml:1:1: not YAML", "two k1")
}

func TestAFileThatIsMissingForAMomentIsTakenWhenItIsBack(t *testing.T) {
	t.Parallel()
	s := source(t)
	watch(t, s, func(w *watched) {
		if err := os.Remove(s.Path); err != nil {
			t.Fatal(err)
		}
		w.look()
		write(t, s.Path, named("two"))
		w.look()
		key := filepath.Join(s.Secrets.Dir, "ANTHROPIC_API_KEY")
		write(t, key, "")
		w.look()
		write(t, key, "k2")
		w.look()
	}, "refused: config.yaml: open ", "two k1", "refused: config.yaml:1:48: ANTHROPIC_API_KEY: ", "two k2")
}

func TestHupIsAlwaysAnswered(t *testing.T) {
	t.Parallel()
	s := source(t)
	watch(t, s, func(w *watched) {
		w.ask()
		w.look()
		write(t, s.Path, "model_list: []\n")
		w.look()
		w.ask()
		w.look()
	}, "one k1", "refused: config.yaml:1:1", "refused: config.yaml:1:1")
}

func TestWhatChangedBetweenLoadAndWatchIsSeen(t *testing.T) {
	t.Parallel()
	s := source(t)
	if _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	write(t, s.Path, named("two"))
	w := &watched{}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w.tick = make(chan time.Time)
		go func() {
			if err := s.Watch(ctx, w.tick, nil, w.apply, w.refused); err != nil {
				t.Errorf("Watch = %v", err)
			}
		}()
		w.look()
		cancel()
	})
	if len(w.done) != 1 || w.done[0] != "two k1" {
		t.Errorf("Watch did %q, want what was written after Load", w.done)
	}
}

// TestClosedChannelsAreNoEvents would never end if Watch ran in circles.
func TestClosedChannelsAreNoEvents(t *testing.T) {
	t.Parallel()
	s := source(t)
	watch(t, s, func(w *watched) {
		close(w.hup)
		w.look()
		close(w.tick)
	})
}

func TestWithoutAPathTheDefaultIsUsed(t *testing.T) {
	t.Parallel()
	s := source(t)
	s.Path = ""
	cfg, err := s.Load()
	if err != nil || len(cfg.Routing.Deployments) < 20 {
		t.Errorf("Load = %d deployments, %v", len(cfg.Routing.Deployments), err)
	}
}

func TestLoadRefusesAFileThatIsNotThere(t *testing.T) {
	t.Parallel()
	s := source(t)
	s.Path += ".not"
	if _, err := s.Load(); err == nil || !strings.Contains(err.Error(), s.Path) {
		t.Errorf("Load = %v, want an error that names the file", err)
	}
}
