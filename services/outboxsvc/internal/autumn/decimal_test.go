package autumn

import (
	"encoding/json"
	"testing"
)

func TestMicroCreditsAddExactly(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   []json.Number
		want int64
		ok   bool
	}{
		{"nothing", nil, 0, true},
		{"one", []json.Number{"3.15"}, 3_150_000, true},
		{"parts that doubles do not add up", []json.Number{"0.1", "0.2"}, 300_000, true},
		{"the noise of a double", []json.Number{"0.30000000000000004"}, 300_000, true},
		{"noise below", []json.Number{"12.345677999999999"}, 12_345_678, true},
		{"parts below a micro-credit are added first", []json.Number{"0.0000004", "0.0000004"}, 1, true},
		{"exponents", []json.Number{"1e-06", "2.5E+1"}, 25_000_001, true},
		{"a refund", []json.Number{"-1.5"}, -1_500_000, true},
		{"a missing value", []json.Number{""}, 0, false},
		{"a hostile exponent", []json.Number{"1e999999999"}, 0, false},
		{"more than fits", []json.Number{"1e40"}, 0, false},
		{"a fraction", []json.Number{"1/3"}, 0, false},
		{"hex", []json.Number{"0x1p4"}, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var list []deduction
			for _, n := range tt.in {
				list = append(list, deduction{n})
			}
			if got, err := microCredits(list); got != tt.want || (err == nil) != tt.ok {
				t.Errorf("microCredits(%q) = %d, %v, want %d, ok: %t", tt.in, got, err, tt.want, tt.ok)
			}
		})
	}
}

func TestPlainExpandsExponents(t *testing.T) {
	t.Parallel()
	for in, want := range map[json.Number]string{
		"12.5": "12.5", "1e-7": "0.0000001", "1.5E3": "1500", "-2e-1": "-0.2", "1e300": "", "": "",
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) = %q, want %q", in, got, want)
		}
	}
}
