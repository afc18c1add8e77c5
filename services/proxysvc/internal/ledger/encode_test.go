package ledger

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// stored is what a journal keeps of a record: in which slices a request runs is for its log alone.
var stored = cmpopts.IgnoreUnexported(Admission{}, Settlement{})

// fill gives every field below v, however deep, a value of its own that is not zero;
// n counts them. Fields that JSON leaves out stay zero.
func fill(t *testing.T, v reflect.Value, n *int) {
	t.Helper()
	*n++
	if _, is := v.Interface().(time.Time); is {
		v.Set(reflect.ValueOf(noon.Add(time.Duration(*n) * time.Millisecond)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d", *n))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(0), n)
		fill(t, v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(t, k, n)
			fill(t, e, n)
			v.SetMapIndex(k, e)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Tag.Get("json") != "-" {
				fill(t, v.Field(i), n)
			}
		}
	default:
		t.Fatalf("cannot fill a %s", v.Type())
	}
}

// again encodes a record and decodes it as the journal does.
func again(t *testing.T, r Record) Record {
	t.Helper()
	buf, err := r.AppendJSON([]byte("before"))
	if err != nil {
		t.Fatal(err)
	}
	var got Record
	if err := json.Unmarshal([]byte(strings.TrimPrefix(string(buf), "before")), &got); err != nil {
		t.Fatalf("%v: %s", err, buf)
	}
	return got
}

// TestEveryFieldOfARecordIsEncoded is for the field that somebody adds.
func TestEveryFieldOfARecordIsEncoded(t *testing.T) {
	t.Parallel()
	n := 0
	intended := Record{By: "a process", Intended: &Admission{}}
	fill(t, reflect.ValueOf(intended.Intended).Elem(), &n)
	intended.Intended.Claims = nil // of no use when it is read
	other := Record{Progress: &Progress{}, Settlement: &Settlement{}}
	fill(t, reflect.ValueOf(other.Progress).Elem(), &n)
	fill(t, reflect.ValueOf(other.Settlement).Elem(), &n)
	for _, r := range []Record{intended, other, {Intended: &Admission{}}} {
		if diff := cmp.Diff(r, again(t, r), stored); diff != "" {
			t.Errorf("encoded and decoded (-want +got):\n%s", diff)
		}
	}
}

// TestAnyTextIsEncodedAsEncodingJSONDoes: records of the version before were.
func TestAnyTextIsEncodedAsEncodingJSONDoes(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "plain", "~ ~", `a "quote"`, `a \ back`, "<a&b>", `"\/`, "\x00\x1f\x7f", "ä€😀\u2028", "not \xff UTF-8", "{[,:"} {
		r := Record{By: s, Intended: &Admission{Request: Request{
			RequestID: s, UserAgent: s, Tags: []string{s, "x", s}, Client: map[string]string{s: s, "x": s},
			StartedAt: time.Date(2026, 11, 24, 12, 0, 30, 123456789, time.FixedZone("", -3*3600)),
		}}}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var want Record
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, again(t, r), stored); diff != "" {
			t.Errorf("%q (-want +got):\n%s", s, diff)
		}
	}
}
