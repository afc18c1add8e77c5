package pricing

import (
	"bytes"
	_ "embed"
	"fmt"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

//go:embed prices.yaml
var defaults []byte

// Default is the price list that comes with the program.
func Default() (*Book, error) { return Load(defaults) }

type file struct {
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

// Load reads a price list in the form of prices.yaml. Unknown settings, rates
// that are no decimals and models that are named twice are errors.
func Load(text []byte) (*Book, error) {
	var f file
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil {
		return nil, fmt.Errorf("price list: %w", err)
	}
	b := &Book{Version: f.Version, models: map[string]*Model{}}
	var err error
	if b.webSearch, err = money.ParseDecimal(f.WebSearch, 9); err != nil {
		return nil, fmt.Errorf("price list: web_search: %w", err)
	}
	if b.tier, err = factors(f.Multiply["service_tier"]); err != nil {
		return nil, fmt.Errorf("price list: %w", err)
	}
	for _, fm := range f.Models {
		m, err := fm.model()
		if err != nil {
			return nil, fmt.Errorf("price list: model %v: %w", fm.Names, err)
		}
		for _, name := range m.Names {
			if _, twice := b.models[name]; twice {
				return nil, fmt.Errorf("price list: model %s is named twice", name)
			}
			b.models[name] = m
		}
	}
	return b, nil
}

func (fm fileModel) model() (*Model, error) {
	if len(fm.Names) == 0 || len(fm.Rates) == 0 || fm.MaxOutputTokens <= 0 {
		return nil, fmt.Errorf("names, rates and max_output_tokens are needed")
	}
	m := &Model{Names: fm.Names, MaxOutputTokens: fm.MaxOutputTokens}
	var err error
	if m.speed, err = factors(fm.Multiply["speed"]); err != nil {
		return nil, err
	}
	if m.geo, err = factors(fm.Multiply["inference_geo"]); err != nil {
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

func factors(texts map[string]string) (map[string]int64, error) {
	out := map[string]int64{}
	for name, text := range texts {
		n, err := money.ParseDecimal(text, 3)
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("multiply: %s: %q is not a positive factor with at most 3 decimals", name, text)
		}
		out[name] = n
	}
	return out, nil
}
