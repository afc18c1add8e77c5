// Package port chooses TCP ports for servers that are started a moment later, by
// another process or after their address was told to others.
package port

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// The ports that are chosen from lie below those that systems take for outgoing
// connections (from 32768 on Linux, from 49152 elsewhere), so that no client's
// connection can take a chosen port before its server does.
const (
	lowest  = 15_000
	highest = 32_000
)

// Free returns an address on which something can listen now. A port that addr
// names is only checked; for port 0 one is chosen.
func Free(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%q is not host:port: %w", addr, err)
	}
	if port != "0" {
		return addr, try(addr)
	}
	for range 200 {
		chosen := net.JoinHostPort(host, strconv.Itoa(lowest+rand.IntN(highest-lowest))) //nolint:gosec // any port will do
		if err = try(chosen); err == nil {
			return chosen, nil
		}
	}
	return "", errors.Join(errors.New("no free port was found"), err)
}

// try listens for a moment.
func try(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}
