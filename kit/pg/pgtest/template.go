package pgtest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pgmigrate"
)

// ensureTemplate returns the name of a template database in which schema has
// been migrated, building it unless it is there. On a server that lives on,
// templates of older files stay behind until someone drops them.
func ensureTemplate(ctx context.Context, admin, schema string, migrations fs.FS) (string, error) {
	sum, err := hash(schema, migrations)
	if err != nil {
		return "", fmt.Errorf("read migrations: %w", err)
	}
	name := "tmpl_" + hex.EncodeToString(sum[:10])
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return "", fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	// Closing the connection unlocks, whatever happens.
	if _, err := conn.Exec(ctx, `select pg_advisory_lock($1)`, int64(binary.BigEndian.Uint64(sum[:]))); err != nil {
		return "", fmt.Errorf("lock template: %w", err)
	}
	var done bool
	err = conn.QueryRow(ctx, `select exists (select from pg_database where datname = $1 and datistemplate)`, name).Scan(&done)
	if err != nil || done {
		return name, err
	}
	return name, build(ctx, conn, name, schema, migrations)
}

// build makes the template. Only the last step marks it as one, so that what an
// interrupted build leaves is built again.
func build(ctx context.Context, conn *pgx.Conn, name, schema string, migrations fs.FS) error {
	for _, sql := range []string{`drop database if exists ` + name + ` with (force)`, `create database ` + name} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("create template: %w", err)
		}
	}
	if err := migrate(ctx, conn.Config(), name, schema, migrations); err != nil {
		return fmt.Errorf("build template: %w", err)
	}
	// Copying fails while anybody is connected to the template.
	if _, err := conn.Exec(ctx, `alter database `+name+` is_template true allow_connections false`); err != nil {
		return fmt.Errorf("finish template: %w", err)
	}
	return nil
}

func migrate(ctx context.Context, cfg *pgx.ConnConfig, name, schema string, migrations fs.FS) error {
	cfg.Database = name
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return pgmigrate.Up(ctx, conn, schema, migrations)
}

// hash identifies a schema and all the files of its migrations.
func hash(schema string, migrations fs.FS) ([sha256.Size]byte, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q\n", schema)
	err := fs.WalkDir(migrations, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(migrations, path)
		fmt.Fprintf(h, "%q %q\n", path, b)
		return err
	})
	return [sha256.Size]byte(h.Sum(nil)), err
}
