package ledger

import (
	"encoding/json"
	"strconv"
	"time"
)

// AppendJSON appends the record as encoding/json reads it. Every request writes an
// intended one, so that is spelled here by hand; the others are written only while
// Postgres is away.
func (r Record) AppendJSON(buf []byte) ([]byte, error) {
	if r.Intended == nil {
		text, err := json.Marshal(r)
		return append(buf, text...), err
	}
	buf = text(append(buf, '{'), "by", r.By)
	buf = r.Intended.append(field(buf, "intended"))
	return append(buf, '}'), nil
}

// append appends what is of use when the process has died: its limits are not, for what is
// only intended is not admitted by anybody any more.
func (a *Admission) append(buf []byte) []byte {
	buf = a.Request.append(append(buf, '{'))
	buf = integer(buf, "Hold", int64(a.Hold))
	buf = integer(buf, "Tokens", a.Tokens)
	return append(buf, '}')
}

// append appends the fields without their braces.
func (r *Request) append(buf []byte) []byte {
	buf = text(buf, "RequestID", r.RequestID)
	buf = text(buf, "KeyID", r.KeyID)
	buf = text(buf, "Token", r.Token)
	buf = text(buf, "TeamID", r.TeamID)
	buf = text(buf, "UserID", r.UserID)
	buf = text(buf, "ModelGroup", r.ModelGroup)
	buf = text(buf, "Model", r.Model)
	buf = text(buf, "ModelID", r.ModelID)
	buf = text(buf, "PriceVersion", r.PriceVersion)
	buf = text(buf, "UserAgent", r.UserAgent)
	if r.Stream {
		buf = append(field(buf, "Stream"), "true"...)
	}
	buf = append(r.StartedAt.AppendFormat(append(field(buf, "StartedAt"), '"'), time.RFC3339Nano), '"')
	if len(r.Tags) > 0 {
		buf = append(field(buf, "Tags"), '[')
		for _, tag := range r.Tags {
			buf = AppendQuoted(AppendComma(buf), tag)
		}
		buf = append(buf, ']')
	}
	if len(r.Client) > 0 {
		buf = append(field(buf, "Client"), '{')
		for name, v := range r.Client {
			buf = AppendQuoted(append(AppendQuoted(AppendComma(buf), name), ':'), v)
		}
		buf = append(buf, '}')
	}
	return buf
}

// text appends a field, unless it is empty; integer does so too.
func text(buf []byte, name, v string) []byte {
	if v == "" {
		return buf
	}
	return AppendQuoted(field(buf, name), v)
}

func integer(buf []byte, name string, v int64) []byte {
	if v == 0 {
		return buf
	}
	return strconv.AppendInt(field(buf, name), v, 10)
}

// field appends what stands before a field's value. Its name needs no escape.
func field(buf []byte, name string) []byte {
	return append(append(append(AppendComma(buf), '"'), name...), '"', ':')
}

// AppendComma appends what stands before all fields and elements but the first.
func AppendComma(buf []byte) []byte {
	if last := buf[len(buf)-1]; last != '{' && last != '[' {
		buf = append(buf, ',')
	}
	return buf
}

// AppendQuoted appends a text as a JSON string. Most need no escape.
func AppendQuoted(buf []byte, s string) []byte {
	for i := range len(s) {
		if !plain[s[i]] {
			text, err := json.Marshal(s)
			if err != nil {
				text = []byte(`""`) // cannot happen: strings always marshal
			}
			return append(buf, text...)
		}
	}
	return append(append(append(buf, '"'), s...), '"')
}

// plain are the bytes that stand for themselves in a string.
var plain = func() (set [256]bool) {
	for c := byte(' '); c <= '~'; c++ {
		set[c] = c != '"' && c != '\\'
	}
	return set
}()
