package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"
)

// pipeline is statements that are sent in one go, and then are done or refused as one
// transaction, or as a part of the one that the session is in. It speaks Postgres's protocol
// itself, for pgx can put no COPY between other statements; it is pgx that takes its
// messages apart.
type pipeline struct {
	statements []statement
	used       []*values
}

type statement struct {
	sql  string
	args []any
	rows *values // that a COPY takes
	each func(row)
}

// row is a result row in Postgres's binary form.
type row [][]byte

func (r row) bigint(i int) int64 { return int64(binary.BigEndian.Uint64(r[i])) }

func (r row) text(i int) string { return string(r[i]) }

func (r row) instant(i int) time.Time {
	micros := r.bigint(i)
	return time.Unix(epoch.Unix()+micros/1e6, micros%1e6*1e3).UTC()
}

// queue adds a statement. Arguments are columns, or what pgx makes of other values; each is
// called with the rows that it returns.
func (p *pipeline) queue(sql string, each func(row), args ...any) {
	p.statements = append(p.statements, statement{sql: sql, args: args, each: each})
}

// copy adds a COPY of rows.
func (p *pipeline) copy(sql string, rows *values) {
	p.statements = append(p.statements, statement{sql: sql, rows: rows})
}

// messages are buffers of what is sent.
var messages = sync.Pool{New: func() any { return new([]byte) }}

// maxMessages is the longest buffer that is kept.
const maxMessages = 1 << 20

// send sends the statements, and returns when they are done.
func (p *pipeline) send(ctx context.Context, c *pgx.Conn) error {
	buf := messages.Get().(*[]byte)
	defer func() {
		for _, v := range p.used {
			spare.Put(v)
		}
		p.used = nil
		if cap(*buf) <= maxMessages {
			messages.Put(buf)
		}
	}()
	var err error
	if *buf, err = p.encode(ctx, c, (*buf)[:0]); err != nil {
		return err
	}
	if err = p.exchange(ctx, c.PgConn(), *buf); err == nil {
		return nil
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || isStale(e) {
		c.Close(ctx) // it is of no more use
	}
	return err
}

// isStale says whether a session must be left because of what it has prepared: the schema
// has changed.
func isStale(e *pgconn.PgError) bool {
	return e.Code == "0A000" || e.Code == "26000" // another type of result, no such statement
}

// exchange sends messages, and reads what comes back, until ctx ends.
func (p *pipeline) exchange(ctx context.Context, c *pgconn.PgConn, sent []byte) error {
	interrupt := context.AfterFunc(ctx, func() { _ = c.Conn().SetDeadline(time.Unix(1, 0)) }) // it fails if the session is lost
	_, err := c.Conn().Write(sent)
	if err == nil {
		err = p.receive(c) //nolint:contextcheck // the deadline stands for it
	}
	if !interrupt() {
		c.Close(ctx) // the deadline may stand in the way of whoever is next
		if err != nil {
			err = errors.Join(ctx.Err(), err)
		}
	}
	return err
}

// receive reads the results of all statements. The first error is that of the pipeline,
// and the last, for the session passes over what is behind it.
func (p *pipeline) receive(c *pgconn.PgConn) (failed error) {
	for i := 0; ; {
		message, err := c.ReceiveMessage(context.Background())
		if err != nil {
			return errors.Join(failed, err)
		}
		switch m := message.(type) {
		case *pgproto3.DataRow:
			if each := p.statements[i].each; each != nil {
				each(m.Values)
			}
		case *pgproto3.CommandComplete:
			i++
		case *pgproto3.ErrorResponse:
			failed = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			return failed
		}
	}
}

// binaryFormat says of all of a statement's arguments, or results, that they are binary.
var binaryFormat = []byte{0, 1, 0, 1}

// prepared are the statements that a session has prepared, by their text.
type prepared map[string]*pgconn.StatementDescription

// prepare prepares those that the session does not have yet, in one round trip.
func (p *pipeline) prepare(ctx context.Context, c *pgconn.PgConn) (prepared, error) {
	known, ok := c.CustomData()["prepared"].(prepared)
	if !ok {
		known = prepared{}
		c.CustomData()["prepared"] = known
	}
	var fresh []string
	for i := range p.statements {
		if sql := p.statements[i].sql; known[sql] == nil && !slices.Contains(fresh, sql) {
			fresh = append(fresh, sql)
		}
	}
	if len(fresh) == 0 {
		return known, nil
	}
	preparing := c.StartPipeline(ctx)
	name := func(i int) string { return "ledger_" + strconv.Itoa(len(known)+i) }
	for i, sql := range fresh {
		preparing.SendPrepare(name(i), sql, nil)
	}
	err := preparing.Sync()
	described := make([]*pgconn.StatementDescription, 0, len(fresh))
	for i := range fresh {
		if err != nil {
			break
		}
		var result any
		if result, err = preparing.GetResults(); err == nil {
			of, _ := result.(*pgconn.StatementDescription) // that is what a prepared statement has
			of.Name = name(i)
			described = append(described, of)
		}
	}
	if err := errors.Join(err, preparing.Close()); err != nil {
		return nil, err
	}
	for i, sql := range fresh {
		known[sql] = described[i]
	}
	return known, nil
}

// encode appends the messages of all statements.
func (p *pipeline) encode(ctx context.Context, c *pgx.Conn, buf []byte) ([]byte, error) {
	known, err := p.prepare(ctx, c.PgConn())
	if err != nil {
		c.Close(ctx) // nobody knows which of them it has
		return buf, fmt.Errorf("prepare a batch: %w", err)
	}
	for i := range p.statements {
		s := &p.statements[i]
		prepared := known[s.sql]
		buf = append(buf, 'B')
		at := len(buf)
		buf = append(buf, 0, 0, 0, 0, 0) // its length, and no name of a portal
		buf = append(append(buf, prepared.Name...), 0)
		buf = append(buf, binaryFormat...)
		buf = binary.BigEndian.AppendUint16(buf, uint16(len(s.args)))
		for n, arg := range s.args {
			if buf, err = appendArgument(c.TypeMap(), prepared.ParamOIDs[n], buf, arg); err != nil {
				return buf, err
			}
		}
		buf = append(buf, binaryFormat...)
		setLength(buf, at)
		if len(prepared.Fields) > 0 {
			buf = append(buf, 'D', 0, 0, 0, 6, 'P', 0)
		}
		buf = append(buf, 'E', 0, 0, 0, 9, 0, 0, 0, 0, 0)
		if s.rows != nil {
			buf = append(buf, 'd')
			at = len(buf)
			buf = s.rows.appendCopy(append(buf, 0, 0, 0, 0))
			setLength(buf, at)
			buf = append(buf, 'c', 0, 0, 0, 4)
		}
	}
	return append(buf, 'S', 0, 0, 0, 4), nil
}

// setLength writes the length of what follows a place, itself included, to it.
func setLength(buf []byte, at int) {
	binary.BigEndian.PutUint32(buf[at:], uint32(len(buf)-at))
}

// appendArgument appends a value with its length.
func appendArgument(m *pgtype.Map, oid uint32, buf []byte, arg any) ([]byte, error) {
	at := len(buf)
	buf = append(buf, 0, 0, 0, 0)
	if c, ok := arg.(*column); ok {
		buf = c.append(buf)
	} else {
		var err error
		if buf, err = m.Encode(oid, pgx.BinaryFormatCode, arg, buf); err != nil {
			return buf, fmt.Errorf("encode an argument: %w", err)
		}
	}
	binary.BigEndian.PutUint32(buf[at:], uint32(len(buf)-at-4))
	return buf, nil
}
