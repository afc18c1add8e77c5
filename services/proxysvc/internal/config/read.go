package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// Config is what a config.yaml says.
type Config struct {
	Routing proxy.Routing
	// Warnings are settings that are not known or do nothing here, and what is
	// likely not meant: one line each, with its place.
	Warnings []string
}

// Read reads a config.yaml in LiteLLM's format. Values "os.environ/NAME" come from
// lookup, which answers with nothing for a name that is not set; see Secrets.
// Everything that is wrong is reported together, in the order of the file, each
// with "config.yaml:LINE:COLUMN:"; no error holds a secret.
//
// What LiteLLM does and this does not: rpm and tpm are bounds, never weights. An
// entry without a weight has the weight 1.
func Read(text []byte, lookup func(name string) (string, error), book *pricing.Book) (Config, error) {
	r := &reader{lookup: lookup, book: book, resolved: map[string]string{}}
	root, err := document(text)
	if err != nil {
		return Config{}, err
	}
	routing := r.file(r.section(root, ""))
	slices.SortStableFunc(r.warnings, finding.compare)
	slices.SortStableFunc(r.faults, finding.compare)
	if len(r.faults) > 0 {
		var faults []error
		for _, f := range r.faults {
			faults = append(faults, errors.New(f.String()))
		}
		return Config{}, errors.Join(faults...)
	}
	cfg := Config{Routing: routing}
	for _, w := range r.warnings {
		cfg.Warnings = append(cfg.Warnings, w.String())
	}
	return cfg, nil
}

// reader gathers what it finds while it reads.
type reader struct {
	lookup           func(string) (string, error)
	book             *pricing.Book
	resolved         map[string]string // variables that were looked up
	faults, warnings []finding
}

// finding is something to tell about a place in the file.
type finding struct {
	line, column int
	text         string
}

func (f finding) String() string {
	return fmt.Sprintf("config.yaml:%d:%d: %s", f.line, f.column, f.text)
}

func (f finding) compare(g finding) int {
	return cmp.Or(cmp.Compare(f.line, g.line), cmp.Compare(f.column, g.column))
}

// found makes a finding, which is one line whatever is told in it.
func found(n *yaml.Node, path, format string, args []any) finding {
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, fmt.Sprintf(format, args...))
	if path != "" {
		text = path + ": " + text
	}
	return finding{line: max(n.Line, 1), column: max(n.Column, 1), text: text}
}

func (r *reader) fault(n *yaml.Node, path, format string, args ...any) {
	r.faults = append(r.faults, found(n, path, format, args))
}

func (r *reader) warn(n *yaml.Node, path, format string, args ...any) {
	r.warnings = append(r.warnings, found(n, path, format, args))
}

// document parses the text, which must be one YAML document.
func document(text []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0 {
		return nil, errors.New(finding{1, 1, "the file is empty"}.String())
	}
	if err == nil {
		err = dec.Decode(&second)
		switch {
		case errors.Is(err, io.EOF):
			return doc.Content[0], nil
		case err == nil:
			return nil, errors.New(found(&second, "", "a second document; one is read", nil).String())
		}
	}
	return nil, errors.New(broken(text, err).String())
}

var (
	yamlLine   = regexp.MustCompile(`^yaml: line (\d+): `)
	yamlAnchor = regexp.MustCompile(`unknown anchor '(.+)' referenced`)
)

// broken tells where the text is no YAML, as well as the parser knows.
func broken(text []byte, err error) finding {
	f := finding{line: 1, column: 1, text: "not YAML: " + strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " ")}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		f.text = strings.Replace(f.text, "line "+m[1]+": ", "", 1)
		if line, err := strconv.Atoi(m[1]); err == nil {
			f.line = max(line, 1)
		}
	}
	if m := yamlAnchor.FindStringSubmatch(err.Error()); m != nil {
		if i := bytes.Index(text, []byte("*"+m[1])); i >= 0 {
			f.line += bytes.Count(text[:i], []byte("\n"))
			f.column = i - bytes.LastIndexByte(text[:i], '\n')
		}
	}
	return f
}
