package store

import (
	"encoding/binary"
	"strconv"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// json adds a JSON text, which write appends.
func (c *columns) json(write func(buf []byte) []byte) {
	col := c.value(pgtype.TextOID, 0)
	from := len(col.data)
	col.data = write(col.data)
	binary.BigEndian.PutUint32(col.data[from-4:], uint32(len(col.data)-from))
}

// tags adds a JSON array of cleaned texts.
func (c *columns) tags(t []string) {
	c.json(func(buf []byte) []byte {
		buf = append(buf, '[')
		for _, tag := range t {
			buf = quote(ledger.AppendComma(buf), tag)
		}
		return append(buf, ']')
	})
}

// facts adds a JSON object of cleaned texts.
func (c *columns) facts(m map[string]string) {
	c.json(func(buf []byte) []byte {
		buf = append(buf, '{')
		for name, v := range m {
			buf = quote(append(quote(ledger.AppendComma(buf), name), ':'), v)
		}
		return append(buf, '}')
	})
}

// amounts adds a JSON object of nano-dollars.
func (c *columns) amounts(m map[string]money.NanoUSD) {
	c.json(func(buf []byte) []byte {
		buf = append(buf, '{')
		for name, v := range m {
			buf = strconv.AppendInt(append(quote(ledger.AppendComma(buf), name), ':'), int64(v), 10)
		}
		return append(buf, '}')
	})
}

// quote appends a text, cleaned, as a JSON string.
func quote(buf []byte, s string) []byte { return ledger.AppendQuoted(buf, clean(s)) }
