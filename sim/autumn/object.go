package autumn

import (
	"bytes"
	"encoding/json"
)

// object is a JSON object whose fields are read by their exact names: Go's
// decoder would take Customer_ID for customer_id, which Autumn does not.
type object map[string]json.RawMessage

// parseObject reads a request body. No body is an empty object.
func parseObject(raw []byte) (object, error) {
	if len(bytes.TrimSpace(raw)) == 0 {
		return object{}, nil
	}
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		return object{}, invalidInputs("body: not a JSON object: %v", err)
	}
	return o, nil
}

// has reports whether a field is there and not null.
func (o object) has(name string) bool {
	raw, ok := o[name]
	return ok && string(raw) != "null"
}

// text returns a string field if it is one.
func (o object) text(name string) (string, bool) {
	var s *string
	if json.Unmarshal(o[name], &s) != nil || s == nil {
		return "", false
	}
	return *s, true
}

// fields reads the fields of an object and keeps the first fault.
type fields struct {
	object
	err error
}

// read decodes a field into to, and reports whether it is there.
func (f *fields) read(name string, to any) bool {
	if f.err != nil || !f.has(name) {
		return false
	}
	if err := json.Unmarshal(f.object[name], to); err != nil {
		f.err = invalidInputs("%s: %v", name, err)
		return false
	}
	return true
}

// need reads a string that must be there and not be empty.
func (f *fields) need(name string) string {
	var s string
	if !f.read(name, &s) || s == "" {
		if f.err == nil {
			f.err = invalidInputs("%s: is required", name)
		}
	}
	return s
}
