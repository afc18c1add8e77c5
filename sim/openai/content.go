package openai

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
)

// part is what is read of a content part.
type part struct {
	Type string
	Text string
	raw  json.RawMessage
}

// UnmarshalJSON reads a part and keeps its JSON.
func (p *part) UnmarshalJSON(data []byte) error {
	var fields struct {
		Type    string `json:"type"`
		Text    string `json:"text"`
		Refusal string `json:"refusal"`
	}
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	*p = part{Type: fields.Type, Text: fields.Text + fields.Refusal, raw: bytes.Clone(data)}
	return nil
}

func (p *part) isImage() bool { return strings.Contains(p.Type, "image") }

// content is a string, null or a list of parts; a string becomes one text part.
type content []part

// UnmarshalJSON reads a content of either API.
func (c *content) UnmarshalJSON(p []byte) error {
	if len(p) == 0 || p[0] != '"' {
		return json.Unmarshal(p, (*[]part)(c))
	}
	var text string
	if err := json.Unmarshal(p, &text); err != nil {
		return err
	}
	*c = content{{Type: "text", Text: text}}
	return nil
}

// text is all that the content says.
func (c content) text() string {
	var b strings.Builder
	for i := range c {
		b.WriteString(c[i].Text)
		b.WriteByte('\n')
	}
	return b.String()
}

// rendering writes a prompt as the text that is counted and cached. The two APIs
// render the same conversation alike.
type rendering struct{ bytes.Buffer }

// imageTokens is what an image counts, whatever its size.
const imageTokens = 765

func (r *rendering) content(role string, c content) {
	for i := range c {
		switch p := &c[i]; {
		case p.isImage():
			r.image(role, p.raw)
		case p.Text == "" && p.raw != nil:
			r.item(role, p.raw)
		default:
			r.line(role, p.Text)
		}
	}
}

func (r *rendering) line(role, text string) {
	r.WriteString(role)
	r.WriteByte(':')
	r.WriteString(text)
	r.WriteByte('\n')
}

// image writes what differs from image to image, at the length of all.
func (r *rendering) image(role string, raw []byte) {
	sum := sha256.Sum256(raw)
	digest := hex.EncodeToString(sum[:])
	r.line(role, strings.Repeat(digest, imageTokens*tokenBytes/len(digest)+1)[:imageTokens*tokenBytes])
}

// item writes JSON whose order, identifiers and state do not count: clients send
// back what they were sent, or some of it.
func (r *rendering) item(role string, raw []byte) {
	var fields map[string]any
	if json.Unmarshal(raw, &fields) != nil {
		r.line(role, string(raw))
		return
	}
	delete(fields, "id")
	delete(fields, "status")
	canonical, err := encode(fields)
	if err != nil {
		canonical = raw
	}
	r.line(role, string(canonical))
}

func (r *rendering) tools(tools []tool) {
	for _, t := range tools {
		r.item("tool", t.raw)
	}
}
