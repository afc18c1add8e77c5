package lean

import (
	"net"
	"sync/atomic"
	"syscall"
)

// writes counts what a server wrote.
type writes struct{ n atomic.Int64 }

// counted is a listener whose connections note their writes.
type counted struct {
	net.Listener
	wrote *writes
}

func (c counted) Accept() (net.Conn, error) {
	nc, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countedConn{nc.(*net.TCPConn), c.wrote}, nil
}

type countedConn struct {
	*net.TCPConn
	wrote *writes
}

// SyscallConn gives the socket that the server writes to.
func (c countedConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.TCPConn.SyscallConn()
	return countedRaw{raw, c.wrote}, err
}

type countedRaw struct {
	syscall.RawConn
	wrote *writes
}

func (c countedRaw) Write(write func(fd uintptr) bool) error {
	c.wrote.n.Add(1)
	return c.RawConn.Write(write)
}
