package pgmigrate

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// state is what a schema looks like to the binary that asks.
type state struct {
	exists  bool // the schema is there
	ours    bool // and has our migrations table
	pending []migration
}

// inspect compares the schema with the files. It returns a refusal, and writes
// nothing, if they do not belong together.
func (m *migrations) inspect(ctx context.Context, tx pgx.Tx) (state, error) {
	var (
		s        state
		occupied bool
		database string
	)
	// A foreign tool may have a table of this name too: look at its columns.
	err := tx.QueryRow(ctx, `
		with schema as (select oid from pg_namespace where nspname = @schema)
		select current_database(),
			exists (select from schema),
			exists (select from pg_class where relnamespace in (select oid from schema))
				or exists (select from pg_proc where pronamespace in (select oid from schema))
				or exists (select from pg_type where typnamespace in (select oid from schema)),
			(select count(*) from pg_attribute a join pg_class c on c.oid = a.attrelid
				where c.relnamespace in (select oid from schema)
					and c.relname = 'migrations' and c.relkind = 'r'
					and a.attname in ('name', 'checksum', 'applied_at')) = 3`,
		pgx.StrictNamedArgs{"schema": m.schema}).Scan(&database, &s.exists, &occupied, &s.ours)
	if err != nil {
		return s, fmt.Errorf("inspect schema %q: %w", m.schema, err)
	}
	if occupied && !s.ours {
		return s, m.refuse(tx.Conn(), database, ErrForeign,
			"it holds objects but no migrations table of this program; use another database, or move that schema away")
	}
	applied := map[string]bool{}
	if s.ours {
		if applied, err = m.applied(ctx, tx, database); err != nil {
			return s, err
		}
	}
	for _, f := range m.files {
		if !applied[f.name] {
			s.pending = append(s.pending, f)
		}
	}
	return s, nil
}

// applied returns the names on record, all of which are known and unchanged.
func (m *migrations) applied(ctx context.Context, tx pgx.Tx, database string) (map[string]bool, error) {
	type record struct{ Name, Checksum string }
	rows, _ := tx.Query(ctx, `select name, checksum from `+m.table()+` order by name`)
	records, err := pgx.CollectRows(rows, pgx.RowToStructByName[record])
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", m.table(), err)
	}
	names := map[string]bool{}
	for _, r := range records {
		f, ok := m.find(r.Name)
		switch {
		case !ok:
			return nil, m.refuse(tx.Conn(), database, ErrNewer,
				fmt.Sprintf("it has %s, which this binary does not know; run a newer binary", r.Name))
		case f.checksum != r.Checksum:
			return nil, m.refuse(tx.Conn(), database, ErrChanged,
				fmt.Sprintf("%s is not what was applied; restore that file and put the change into a new migration", r.Name))
		}
		names[r.Name] = true
	}
	return names, nil
}

func (m *migrations) refuse(conn *pgx.Conn, database string, why error, advice string) error {
	c := conn.Config()
	return fmt.Errorf("%w: schema %q in database %q on %s:%d: %s", why, m.schema, database, c.Host, c.Port, advice)
}
