// Package port chooses TCP ports for servers that are started a moment later, by
// another process or after their address was told to others. A chosen port belongs
// to the process that chose it until that ends.
package port

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// The ports that are chosen from lie below those that systems take for outgoing
// connections (from 32768 on Linux, from 49152 elsewhere), so that no client's
// connection can take a chosen port before its server does.
const (
	lowest  = 15_000
	highest = 32_000
)

// Free returns an address on which something can listen now. A port that addr
// names is only checked; for port 0 one is chosen, which no other call chooses, in
// whatever process, while this process lives.
func Free(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%q is not host:port: %w", addr, err)
	}
	if port != "0" {
		return addr, try(addr)
	}
	for range 200 {
		number := lowest + rand.IntN(highest-lowest) //nolint:gosec // any port will do
		chosen := net.JoinHostPort(host, strconv.Itoa(number))
		if err = try(chosen); err != nil {
			continue
		}
		if err = reserve(number); err == nil {
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

// reserve takes the UDP port of the same number, which nobody wants, until the
// process ends: a mark that other processes see and that no crash leaves behind.
func reserve(number int) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return fmt.Errorf("reserve a port: %w", err)
	}
	syscall.CloseOnExec(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: number, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return errors.Join(fmt.Errorf("port %d is chosen already: %w", number, err), syscall.Close(fd))
	}
	return nil
}
