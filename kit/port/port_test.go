package port

import (
	"net"
	"strconv"
	"testing"
)

func TestAChosenPortIsFreeAndOutOfTheWayOfClients(t *testing.T) {
	t.Parallel()
	addr, err := Free("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, text, err := net.SplitHostPort(addr)
	n, convErr := strconv.Atoi(text)
	if err != nil || convErr != nil || host != "127.0.0.1" || n < lowest || n >= highest {
		t.Errorf("Free = %s, %v", addr, err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	defer l.Close()
	if _, err := Free(addr); err == nil {
		t.Error("a port in use passes")
	}
	if _, err := Free("nonsense"); err == nil {
		t.Error("nonsense passes")
	}
}

// TestNoPortIsChosenTwice chooses so many that some would be the same by chance:
// nothing listens on them yet.
func TestNoPortIsChosenTwice(t *testing.T) {
	t.Parallel()
	chosen := map[string]bool{}
	for range 600 {
		addr, err := Free("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if chosen[addr] {
			t.Fatalf("%s was chosen twice", addr)
		}
		chosen[addr] = true
	}
}
