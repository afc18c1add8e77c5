package store

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// values are the rows of one statement, encoded in Postgres's binary form as they come: as
// an array a column, or one row behind the other, as COPY takes them. Values go to the
// columns in turn, so that a row is added by adding its values in their order.
type values struct {
	all   []column
	width int  // values of a row
	next  int  // value of the row
	copy  bool // all are in one column
}

// column is a one-dimensional array of a type.
type column struct {
	element uint32 // OID of the type
	n       int
	null    bool // one is
	data    []byte
}

var spare = sync.Pool{New: func() any { return new(values) }}

// columns makes n columns for one statement.
func (p *pipeline) columns(n int) *values { return p.take(n, n, false) }

// rows makes rows of n values for a COPY.
func (p *pipeline) rows(n int) *values { return p.take(1, n, true) }

func (p *pipeline) take(columns, width int, isCopy bool) *values {
	v := spare.Get().(*values)
	v.all, v.width, v.next, v.copy = slices.Grow(v.all[:0], columns)[:columns], width, 0, isCopy
	for i := range v.all {
		c := &v.all[i]
		*c = column{data: c.data[:0]}
	}
	p.used = append(p.used, v)
	return v
}

// len is how many rows were begun.
func (v *values) len() int { return v.all[0].n }

// args are the columns as arguments of a statement.
func (v *values) args(first ...any) []any {
	args := slices.Grow(first, len(v.all))
	for i := range v.all {
		args = append(args, &v.all[i])
	}
	return args
}

// value begins the next value, of a type and a length; -1: null.
func (v *values) value(element uint32, length int) *column {
	c := &v.all[0]
	switch {
	case !v.copy:
		c = &v.all[v.next]
		c.element = element
		c.n++
	case v.next == 0:
		c.n++
		c.data = binary.BigEndian.AppendUint16(c.data, uint16(v.width))
	}
	if v.next++; v.next == v.width {
		v.next = 0
	}
	c.data = binary.BigEndian.AppendUint32(c.data, uint32(length))
	return c
}

func (v *values) texts(texts ...string) {
	for _, t := range texts {
		c := v.value(pgtype.TextOID, len(t))
		c.data = append(c.data, t...)
	}
}

func (v *values) bigints(ints ...int64) {
	for _, n := range ints {
		c := v.value(pgtype.Int8OID, 8)
		c.data = binary.BigEndian.AppendUint64(c.data, uint64(n))
	}
}

func (v *values) smallint(n int16) {
	c := v.value(pgtype.Int2OID, 2)
	c.data = binary.BigEndian.AppendUint16(c.data, uint16(n))
}

func (v *values) integer(n int32) {
	c := v.value(pgtype.Int4OID, 4)
	c.data = binary.BigEndian.AppendUint32(c.data, uint32(n))
}

func (v *values) boolean(b bool) {
	c := v.value(pgtype.BoolOID, 1)
	if b {
		c.data = append(c.data, 1)
	} else {
		c.data = append(c.data, 0)
	}
}

// epoch is Postgres's.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// instant adds a timestamptz; the zero time is null.
func (v *values) instant(t time.Time) {
	if t.IsZero() {
		v.value(pgtype.TimestamptzOID, -1).null = true
		return
	}
	c := v.value(pgtype.TimestamptzOID, 8)
	micros := t.Unix()*1e6 + int64(t.Nanosecond())/1e3 - epoch.UnixMicro()
	c.data = binary.BigEndian.AppendUint64(c.data, uint64(micros))
}

// date adds a day.
func (v *values) date(d date) {
	c := v.value(pgtype.DateOID, 4)
	c.data = binary.BigEndian.AppendUint32(c.data, uint32(d))
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

// append appends the column as Postgres's array_recv reads it.
func (c *column) append(buf []byte) []byte {
	nulls := uint32(0)
	if c.null {
		nulls = 1
	}
	for _, field := range []uint32{1, nulls, c.element, uint32(c.n), 1} {
		buf = binary.BigEndian.AppendUint32(buf, field)
	}
	return append(buf, c.data...)
}

// appendCopy appends the rows as a COPY in binary form reads them.
func (v *values) appendCopy(buf []byte) []byte {
	buf = append(buf, "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	return append(append(buf, v.all[0].data...), 0xff, 0xff)
}
