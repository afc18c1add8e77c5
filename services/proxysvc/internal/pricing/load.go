package pricing

import (
	"bytes"
	_ "embed" // the price lists
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

//go:embed prices.yaml
var anthropicPrices []byte

//go:embed openai.yaml
var openAIPrices []byte

// Default is the price list that comes with the program.
func Default() (*Book, error) {
	return Load(slices.Concat(anthropicPrices, []byte("---\n"), openAIPrices))
}

type file struct {
	Provider  string                       `yaml:"provider"`
	Version   string                       `yaml:"version"`
	WebSearch string                       `yaml:"web_search"`
	Multiply  map[string]map[string]string `yaml:"multiply"`
	Models    []fileModel                  `yaml:"models"`
}

type fileModel struct {
	Names           []string                     `yaml:"names"`
	MaxOutputTokens int64                        `yaml:"max_output_tokens"`
	Multiply        map[string]map[string]string `yaml:"multiply"`
	Rates           []fileRate                   `yaml:"rates"`
}

type fileRate struct {
	From      string `yaml:"from"`
	fileRates `yaml:",inline"`
	Above     *fileAbove `yaml:"above"`
}

type fileRates struct {
	Input        string `yaml:"input"`
	Output       string `yaml:"output"`
	CacheWrite5m string `yaml:"cache_write_5m"`
	CacheWrite1h string `yaml:"cache_write_1h"`
	CacheRead    string `yaml:"cache_read"`
}

type fileAbove struct {
	PromptTokens int64 `yaml:"prompt_tokens"`
	fileRates    `yaml:",inline"`
}

// Load reads a price list in the form of prices.yaml. The provider is anthropic
// unless it is given. Unknown settings, rates that are no decimals and models
// that are named twice are errors.
func Load(text []byte) (*Book, error) {
	b := &Book{models: map[string]*Model{}}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	for documents := 0; ; documents++ {
		var f file
		err := dec.Decode(&f)
		if errors.Is(err, io.EOF) && documents > 0 {
			return b, nil
		}
		if err == nil {
			err = b.add(f)
		}
		if err != nil {
			return nil, fmt.Errorf("price list: %w", err)
		}
	}
}

// add puts a document's models into the book. The book's version is the newest
// one, and its price of a search the dearest.
func (b *Book) add(f file) error {
	search, err := money.ParseDecimal(f.WebSearch, 9)
	if err != nil || search < 0 {
		return fmt.Errorf("web_search: %q is not a price in USD", f.WebSearch)
	}
	b.Version, b.webSearch = max(b.Version, f.Version), max(b.webSearch, search)
	if f.Provider == "" {
		f.Provider = "anthropic"
	}
	for _, fm := range f.Models {
		m, err := fm.model(f.Multiply["service_tier"])
		if err != nil {
			return fmt.Errorf("model %v: %w", fm.Names, err)
		}
		m.Provider, m.webSearch = f.Provider, search
		for _, name := range m.Names {
			if _, twice := b.models[name]; twice {
				return fmt.Errorf("model %s is named twice", name)
			}
			b.models[name] = m
		}
	}
	return nil
}

// model makes a model of its entry; tiers are the document's service tiers, of
// which the entry's own replace those they name.
func (fm fileModel) model(tiers map[string]string) (*Model, error) {
	if len(fm.Names) == 0 || len(fm.Rates) == 0 || fm.MaxOutputTokens <= 0 {
		return nil, fmt.Errorf("names, rates and max_output_tokens are needed")
	}
	if own, ok := fm.Multiply["service_tier"]; ok {
		all := map[string]string{}
		maps.Copy(all, tiers)
		maps.Copy(all, own)
		tiers = all
	}
	m := &Model{Names: fm.Names, MaxOutputTokens: fm.MaxOutputTokens}
	var err error
	if m.speed, err = readFactors(fm.Multiply["speed"]); err != nil {
		return nil, err
	}
	if m.geo, err = readFactors(fm.Multiply["inference_geo"]); err != nil {
		return nil, err
	}
	if m.tier, err = readFactors(tiers); err != nil {
		return nil, err
	}
	for _, fr := range fm.Rates {
		r, err := fr.rate()
		if err != nil {
			return nil, err
		}
		m.rates = append(m.rates, r)
	}
	if !slices.IsSortedFunc(m.rates, func(a, b rate) int { return a.from.Compare(b.from) }) {
		return nil, fmt.Errorf("rates are not in the order of their `from` days")
	}
	return m, nil
}

func (fr fileRate) rate() (rate, error) {
	var r rate
	var err error
	if fr.From != "" {
		if r.from, err = time.Parse(time.DateOnly, fr.From); err != nil {
			return r, fmt.Errorf("from: %w", err)
		}
	}
	if r.base, err = fr.rates(); err != nil {
		return r, err
	}
	if fr.Above == nil {
		return r, nil
	}
	if r.threshold = fr.Above.PromptTokens; r.threshold <= 0 {
		return r, fmt.Errorf("above.prompt_tokens must be positive")
	}
	r.above, err = fr.Above.rates()
	return r, err
}

func (fr fileRates) rates() (Rates, error) {
	var r Rates
	for _, field := range []struct {
		name, text string
		to         *int64
	}{
		{"input", fr.Input, &r.Input},
		{"output", fr.Output, &r.Output},
		{"cache_write_5m", fr.CacheWrite5m, &r.CacheWrite5m},
		{"cache_write_1h", fr.CacheWrite1h, &r.CacheWrite1h},
		{"cache_read", fr.CacheRead, &r.CacheRead},
	} {
		n, err := money.ParseUSD(field.text)
		if err != nil || n < 0 {
			return r, fmt.Errorf("%s: %q is not a price in USD per million tokens", field.name, field.text)
		}
		*field.to = int64(n)
	}
	return r, nil
}

// maxFactor keeps products of factors far from the end of 128 bits.
const maxFactor = 100 * thousandths

func readFactors(texts map[string]string) (factors, error) {
	out := factors{}
	for name, text := range texts {
		n, err := money.ParseDecimal(text, 3)
		if err != nil || n <= 0 || n > maxFactor {
			return nil, fmt.Errorf("multiply: %s: %q is not a factor above 0, up to 100, with at most 3 decimals", name, text)
		}
		out[name] = n
	}
	return out, nil
}
