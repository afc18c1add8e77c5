package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/load"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pglocal"
)

// watcher looks at a process while it is measured.
type watcher struct {
	start func() error
	stop  func(requests int64) error
}

// profile runs a scenario three times more against proxysvc: with perf, which says
// where its CPU goes and that of its Postgres, and with strace, which counts its
// system calls. Both cost time, so that nothing else of these runs counts.
func (s *stand) profile(ctx context.Context, sc scenario) error {
	if err := os.MkdirAll(s.set.Profile, 0o755); err != nil {
		return err
	}
	t, err := s.target(ctx, proxysvc)
	if err != nil {
		return err
	}
	say("  profiling")
	file := filepath.Join(s.set.Profile, sc.name)
	ours, err := s.backends(ctx)
	if err != nil {
		return err
	}
	if err := s.statements(ctx, sc, t, file); err != nil {
		return err
	}
	for _, w := range []*watcher{s.perf(ctx, file, strconv.Itoa(t.pids[0])), s.perf(ctx, file+".postgres", ours), s.strace(ctx, file, t.pids[0])} {
		if _, err := s.measure(ctx, sc, t, w); err != nil {
			return err
		}
	}
	return nil
}

// configure starts Postgres anew with other settings, and for profiles with
// pg_stat_statements, which costs a few per cent.
func (s *stand) configure(ctx context.Context, o pglocal.Options) error {
	set := s.set.Postgres
	if s.set.Profile != "" {
		set = append(slices.Clone(set), "shared_preload_libraries=pg_stat_statements")
	}
	if len(set) == 0 {
		return nil
	}
	conn, err := pgx.Connect(ctx, s.pg.URL())
	if err != nil {
		return err
	}
	for _, setting := range set {
		name, value, _ := strings.Cut(setting, "=")
		var sql string
		if err == nil {
			err = conn.QueryRow(ctx, `select format('alter system set %I = %L', $1::text, $2::text)`, name, value).Scan(&sql)
		}
		if err == nil {
			_, err = conn.Exec(ctx, sql)
		}
	}
	if err := errors.Join(err, conn.Close(ctx), s.pg.Stop(ctx)); err != nil {
		return err
	}
	if s.pg, err = pglocal.Start(ctx, o); err != nil || s.set.Profile == "" {
		return err
	}
	if conn, err = pgx.Connect(ctx, s.pg.URL()); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `create extension pg_stat_statements`)
	return errors.Join(err, conn.Close(ctx))
}

// statements writes what each statement of proxysvc costs Postgres, and which tables
// are read from end to end.
func (s *stand) statements(ctx context.Context, sc scenario, t *target, file string) error {
	if _, err := s.db.Exec(ctx, `select pg_stat_statements_reset(), pg_stat_reset()`); err != nil {
		return err
	}
	before, err := s.openBooks(ctx)
	if err != nil {
		return err
	}
	if _, err := s.measure(ctx, sc, t, nil); err != nil {
		return err
	}
	after, err := s.openBooks(ctx)
	if err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d rows\n", after.seq-before.seq)
	for _, query := range []string{`
		select format('%8s calls  %10s ms  %8s rows  %10s bytes of WAL  %10s blocks, %8s read  %s', calls, round(total_exec_time::numeric, 1), rows, wal_bytes,
		  shared_blks_hit + shared_blks_read, shared_blks_read, regexp_replace(left(query, 110), '\s+', ' ', 'g'))
		from pg_stat_statements order by total_exec_time desc limit 20`, `
		select format('%-30s %8s scans from end to end, of %10s rows; %8s rows inserted, %8s updated (%s hot), %8s deleted, %6s dead',
		  relname, seq_scan, seq_tup_read, n_tup_ins, n_tup_upd, n_tup_hot_upd, n_tup_del, n_dead_tup)
		from pg_stat_user_tables where schemaname = 'spend' and seq_scan + n_tup_ins + n_tup_upd + n_tup_del > 0 order by seq_tup_read desc`} {
		rows, _ := s.db.Query(ctx, query) // CollectRows reports its error
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "\n%s\n", strings.Join(lines, "\n"))
	}
	return os.WriteFile(file+".statements.txt", []byte(text.String()), 0o644)
}

// backends are the processes of Postgres that serve proxysvc.
func (s *stand) backends(ctx context.Context) (pids string, err error) {
	err = s.db.QueryRow(ctx, `select coalesce(string_agg(pid::text, ','), '') from pg_stat_activity where application_name = 'proxysvc'`).Scan(&pids)
	return pids, err
}

// tool is a program that runs beside the process, and ends upon an interrupt.
type tool struct {
	cmd *exec.Cmd
	out strings.Builder
}

func (t *tool) start(ctx context.Context, name string, args ...string) error {
	t.cmd = exec.CommandContext(ctx, name, args...)
	t.cmd.Stdout, t.cmd.Stderr = &t.out, &t.out
	return t.cmd.Start()
}

func (t *tool) stop() error {
	if err := t.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	err := t.cmd.Wait()
	if _, interrupted := errors.AsType[*exec.ExitError](err); err != nil && !interrupted {
		return err
	}
	return nil
}

// perf samples stacks, and writes the functions by their own time and by the time
// below them.
func (s *stand) perf(ctx context.Context, file, pids string) *watcher {
	var t tool
	data := file + ".perf.data"
	return &watcher{
		start: func() error {
			return t.start(ctx, "perf", "record", "-F", "997", "-g", "-o", data, "-p", pids)
		},
		stop: func(int64) error {
			if err := t.stop(); err != nil {
				return err
			}
			for name, by := range map[string]string{"self": "--no-children", "below": "--children"} {
				args := []string{"report", "-i", data, "--stdio", by, "-g", "none", "--percent-limit", "0.25", "--sort", "symbol"}
				text, err := exec.CommandContext(ctx, "perf", args...).Output()
				if err != nil {
					return fmt.Errorf("perf report: %w\n%s", err, t.out.String())
				}
				if err := os.WriteFile(file+".cpu-"+name+".txt", text, 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// strace counts system calls.
func (s *stand) strace(ctx context.Context, file string, pid int) *watcher {
	var t tool
	return &watcher{
		start: func() error { return t.start(ctx, "strace", "-c", "-f", "-p", strconv.Itoa(pid)) },
		stop: func(requests int64) error {
			if err := t.stop(); err != nil {
				return err
			}
			var lines []string
			for line := range strings.Lines(t.out.String()) {
				if !strings.HasPrefix(line, "strace: ") {
					lines = append(lines, line)
				}
			}
			text := fmt.Sprintf("%d requests\n%s", requests, strings.Join(lines, ""))
			return os.WriteFile(file+".syscalls.txt", []byte(text), 0o644)
		},
	}
}

// begin and end are no-ops without a watcher.
func (w *watcher) begin() error {
	if w == nil {
		return nil
	}
	return w.start()
}

func (w *watcher) end(res load.Result) error {
	if w == nil {
		return nil
	}
	return w.stop(res.Done + res.LeftDone)
}
