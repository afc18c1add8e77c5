package autumn_test

import (
	"testing"

	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

func TestParseAmount(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text, want string // want empty: refused
	}{
		{"0", "0"},
		{"-0", "0"},
		{"1", "1"},
		{"12.50", "12.5"},
		{"-3.000001", "-3.000001"},
		{"0.0000000001", "0.0000000001"},
		{"-0.0000000001", "-0.0000000001"},
		{"0.00000000005", "0.0000000001"},
		{"-0.00000000005", "-0.0000000001"},
		{"0.00000000004", "0"},
		{"1e3", "1000"},
		{"1.5E-7", "0.00000015"},
		{"900000000", "900000000"},
		{"1e9", ""},
		{"1e999999999", ""},
		{"", ""},
		{"null", ""},
		{`"1"`, ""},
		{"1/2", ""},
		{"0x1", ""},
		{"NaN", ""},
	}
	for _, tt := range tests {
		got, err := autumn.ParseAmount(tt.text)
		if (err != nil) != (tt.want == "") || (err == nil && got.String() != tt.want) {
			t.Errorf("ParseAmount(%s) = %s, %v, want %q", tt.text, got, err, tt.want)
		}
	}
}

func FuzzAmount(f *testing.F) {
	f.Add("0.1")
	f.Add("-12.0000000001")
	f.Add("1e-5")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := autumn.ParseAmount(text)
		if err != nil {
			return
		}
		if again, err := autumn.ParseAmount(a.String()); err != nil || again != a {
			t.Errorf("ParseAmount(%q) = %v, %v, want %v", a.String(), again, err, a)
		}
	})
}
