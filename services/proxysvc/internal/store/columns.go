package store

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// columns are the rows of one statement, as an array a column. Values are encoded as
// they come, in Postgres's binary form: to have pgx do it by reflection costs as much
// as all the rest of a batch. Values go to the columns in turn, so that a row is added
// by adding its values in their order.
type columns struct {
	all  []column
	next int // column
}

// column is a one-dimensional array of a type.
type column struct {
	element uint32 // OID of the type
	n       int
	null    bool // one is
	data    []byte
	after   int // bytes that the columns behind it take
}

// arrayHeader is how long an array is without its elements.
const arrayHeader = 20

// pipeline is a batch of statements, whose columns are used again when it was sent.
type pipeline struct {
	pgx.Batch
	used []*columns
}

var spare = sync.Pool{New: func() any { return new(columns) }}

// columns makes columns of one statement.
func (p *pipeline) columns(n int) *columns {
	c := spare.Get().(*columns)
	c.all, c.next = slices.Grow(c.all[:0], n)[:n], 0
	for i := range c.all {
		col := &c.all[i]
		*col = column{data: col.data[:0]}
	}
	p.used = append(p.used, c)
	return c
}

// send sends the statements, and returns when they are done.
func (p *pipeline) send(ctx context.Context, to interface {
	SendBatch(context.Context, *pgx.Batch) pgx.BatchResults
},
) error {
	err := to.SendBatch(ctx, &p.Batch).Close()
	for _, c := range p.used {
		spare.Put(c)
	}
	p.used = nil
	return err
}

// len is how many rows were begun.
func (c *columns) len() int { return c.all[0].n }

// args are the arrays as arguments of a statement.
func (c *columns) args(first ...any) []any {
	args := slices.Grow(first, len(c.all))
	for i := range c.all {
		args = append(args, &c.all[i])
	}
	after := 0
	for i := range slices.Backward(c.all) {
		c.all[i].after = after
		after += arrayHeader + len(c.all[i].data)
	}
	return args
}

// value begins the next value, of a type and a length; -1: null.
func (c *columns) value(element uint32, length int) *column {
	col := &c.all[c.next]
	if c.next++; c.next == len(c.all) {
		c.next = 0
	}
	col.element = element
	col.n++
	col.data = binary.BigEndian.AppendUint32(col.data, uint32(length))
	return col
}

func (c *columns) texts(values ...string) {
	for _, v := range values {
		col := c.value(pgtype.TextOID, len(v))
		col.data = append(col.data, v...)
	}
}

func (c *columns) bigints(values ...int64) {
	for _, v := range values {
		col := c.value(pgtype.Int8OID, 8)
		col.data = binary.BigEndian.AppendUint64(col.data, uint64(v))
	}
}

func (c *columns) boolean(v bool) {
	col := c.value(pgtype.BoolOID, 1)
	if v {
		col.data = append(col.data, 1)
	} else {
		col.data = append(col.data, 0)
	}
}

// epoch is Postgres's.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// instant adds a timestamptz; the zero time is null.
func (c *columns) instant(t time.Time) {
	if t.IsZero() {
		c.value(pgtype.TimestamptzOID, -1).null = true
		return
	}
	col := c.value(pgtype.TimestamptzOID, 8)
	micros := t.Unix()*1e6 + int64(t.Nanosecond())/1e3 - epoch.UnixMicro()
	col.data = binary.BigEndian.AppendUint64(col.data, uint64(micros))
}

// date adds a day.
func (c *columns) date(d date) {
	col := c.value(pgtype.DateOID, 4)
	col.data = binary.BigEndian.AppendUint32(col.data, uint32(d))
}

// date is a day, counted from Postgres's epoch.
type date int32

// day is the one of an instant, in UTC.
func day(t time.Time) date {
	seconds := t.Unix() - epoch.Unix()
	days := seconds / 86400
	if seconds%86400 < 0 {
		days--
	}
	return date(days)
}

// columnCodec lets columns pass as they are, and leaves the rest to pgx.
type columnCodec struct{ pgtype.Codec }

// PlanEncode makes columnCodec a pgtype.Codec.
func (c columnCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if _, ok := value.(*column); ok && format == pgtype.BinaryFormatCode {
		return asIs{}
	}
	return c.Codec.PlanEncode(m, oid, format, value)
}

type asIs struct{}

// Encode appends what Postgres's array_recv reads.
func (asIs) Encode(value any, buf []byte) ([]byte, error) {
	c := value.(*column)
	buf = slices.Grow(buf, arrayHeader+len(c.data)+c.after) // once for all columns of a statement
	nulls := uint32(0)
	if c.null {
		nulls = 1
	}
	for _, field := range []uint32{1, nulls, c.element, uint32(c.n), 1} {
		buf = binary.BigEndian.AppendUint32(buf, field)
	}
	return append(buf, c.data...), nil
}

// takeColumns makes a session take columns as arguments, if it does not yet.
func takeColumns(m *pgtype.Map) {
	if t, ok := m.TypeForOID(pgtype.TextArrayOID); ok {
		if _, done := t.Codec.(columnCodec); done {
			return
		}
	}
	for _, oid := range []uint32{pgtype.TextArrayOID, pgtype.Int8ArrayOID, pgtype.BoolArrayOID, pgtype.TimestamptzArrayOID, pgtype.DateArrayOID} {
		if t, ok := m.TypeForOID(oid); ok {
			m.RegisterType(&pgtype.Type{Name: t.Name, OID: oid, Codec: columnCodec{t.Codec}})
		}
	}
}
