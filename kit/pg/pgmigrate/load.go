package pgmigrate

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

type migration struct {
	name, sql, checksum string
}

type migrations struct {
	schema string
	lock   int64
	files  []migration // by name
}

var fileName = regexp.MustCompile(`^\d{4}_[a-z0-9_]+\.sql$`)

// load reads the migrations of schema. It rejects what can only be a mistake:
// no files, a file that would never be applied, two with the same number.
func load(schema string, files fs.FS) (*migrations, error) {
	names, err := list(files)
	if err != nil {
		return nil, fmt.Errorf("list migrations of schema %q: %w", schema, err)
	}
	if schema == "" || len(names) == 0 {
		return nil, fmt.Errorf("schema %q has no migrations", schema)
	}
	sum := sha256.Sum256([]byte("pgmigrate:" + schema))
	m := &migrations{schema: schema, lock: int64(binary.BigEndian.Uint64(sum[:]))}
	for _, p := range names {
		sql, err := fs.ReadFile(files, p)
		if err != nil {
			return nil, fmt.Errorf("read migration: %w", err)
		}
		sum := sha256.Sum256(sql)
		m.files = append(m.files, migration{path.Base(p), string(sql), hex.EncodeToString(sum[:])})
	}
	slices.SortFunc(m.files, func(a, b migration) int { return strings.Compare(a.name, b.name) })
	return m, m.validate()
}

func list(files fs.FS) ([]string, error) {
	root, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, err
	}
	sub, err := fs.Glob(files, "migrations/*.sql")
	return append(root, sub...), err
}

func (m *migrations) validate() error {
	var errs []error
	for i, f := range m.files {
		if !fileName.MatchString(f.name) {
			errs = append(errs, fmt.Errorf("migration %q of schema %q is not named NNNN_name.sql", f.name, m.schema))
		} else if i > 0 && m.files[i-1].name[:4] == f.name[:4] {
			errs = append(errs, fmt.Errorf("migrations %q and %q of schema %q have the same number", m.files[i-1].name, f.name, m.schema))
		}
	}
	return errors.Join(errs...)
}

func (m *migrations) find(name string) (migration, bool) {
	i := slices.IndexFunc(m.files, func(f migration) bool { return f.name == name })
	if i < 0 {
		return migration{}, false
	}
	return m.files[i], true
}

func (m *migrations) table() string {
	return pgx.Identifier{m.schema, "migrations"}.Sanitize()
}
