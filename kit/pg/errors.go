package pg

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// IsUnavailable reports whether err says that the database cannot do it now
// although nothing is wrong with the request: it could not be reached, went
// away, is shutting down, starting, full, or read only after a failover. The
// statement may still have taken effect if the connection broke while it ran.
// A request that the caller gave up on is not unavailability.
func IsUnavailable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true // even for a wrong password: no request chose it
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return unavailableCode(e.Code)
	}
	_, network := errors.AsType[*net.OpError](err)
	return network || errors.Is(err, pgconn.ErrConnClosed) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func unavailableCode(code string) bool {
	switch code {
	case "57P01", // admin_shutdown
		"57P02", // crash_shutdown
		"57P03", // cannot_connect_now
		"53100", // disk_full
		"53300", // too_many_connections
		"25006": // read_only_sql_transaction
		return true
	}
	return len(code) == 5 && code[:2] == "08" // connection exceptions
}

// Constraint returns the name of the constraint that err says was violated,
// empty if err is about something else.
func Constraint(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.ConstraintName
	}
	return ""
}
