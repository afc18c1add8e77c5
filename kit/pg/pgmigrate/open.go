package pgmigrate

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/pg"
)

// Open returns a pool on a database whose schema it has brought up to date. The
// caller closes the pool. Its errors are those of pg.Open and of Up.
func Open(ctx context.Context, url string, o pg.Options, schema string, files fs.FS) (*pgxpool.Pool, error) {
	pool, err := pg.Open(ctx, url, o)
	if err != nil {
		return nil, err
	}
	err = pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		return Up(ctx, conn.Conn(), schema, files)
	})
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("migrate: %w", err)
	}
	return pool, nil
}
