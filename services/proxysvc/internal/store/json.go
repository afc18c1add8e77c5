package store

import (
	"encoding/binary"
	"strconv"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// jsonbVersion begins the binary form of a jsonb, which is its text.
const jsonbVersion = 1

// json adds a jsonb, whose text write appends.
func (v *values) json(write func(buf []byte) []byte) {
	c := v.value(pgtype.JSONBOID, 0)
	from := len(c.data)
	c.data = write(append(c.data, jsonbVersion))
	binary.BigEndian.PutUint32(c.data[from-4:], uint32(len(c.data)-from))
}

// tags adds a JSON array of cleaned texts.
func (v *values) tags(t []string) {
	v.json(func(buf []byte) []byte {
		buf = append(buf, '[')
		for _, tag := range t {
			buf = quote(ledger.AppendComma(buf), tag)
		}
		return append(buf, ']')
	})
}

// facts adds a JSON object of cleaned texts.
func (v *values) facts(m map[string]string) {
	v.json(func(buf []byte) []byte {
		buf = append(buf, '{')
		for name, value := range m {
			buf = quote(append(quote(ledger.AppendComma(buf), name), ':'), value)
		}
		return append(buf, '}')
	})
}

// amounts adds a JSON object of nano-dollars.
func (v *values) amounts(m map[string]money.NanoUSD) {
	v.json(func(buf []byte) []byte {
		buf = append(buf, '{')
		for name, value := range m {
			buf = strconv.AppendInt(append(quote(ledger.AppendComma(buf), name), ':'), int64(value), 10)
		}
		return append(buf, '}')
	})
}

// quote appends a text, cleaned, as a JSON string.
func quote(buf []byte, s string) []byte { return ledger.AppendQuoted(buf, clean(s)) }
