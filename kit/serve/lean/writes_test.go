package lean

import (
	"net"
	"sync"
)

// writes are the sizes of what a server wrote.
type writes struct {
	mu  sync.Mutex
	all []int
}

func (w *writes) sizes() []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all
}

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

func (c countedConn) Write(p []byte) (int, error) {
	c.wrote.mu.Lock()
	c.wrote.all = append(c.wrote.all, len(p))
	c.wrote.mu.Unlock()
	return c.TCPConn.Write(p)
}
