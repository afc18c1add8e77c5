package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// Ready is the ready file: where the running suite is. It holds the master key,
// so only its owner may read it.
type Ready struct {
	ProxyURL     string         `json:"proxy_url"`
	MasterKey    string         `json:"master_key"`
	DatabaseURL  string         `json:"database_url"`
	AnthropicURL string         `json:"anthropic_url"`
	AutumnURL    string         `json:"autumn_url"`
	Services     []ReadyService `json:"services"`

	mu sync.Mutex
}

// ReadyService is one replica of a service.
type ReadyService struct {
	Name     string `json:"name"`
	GRPCAddr string `json:"grpc_addr"`
	HTTPAddr string `json:"http_addr"`
	PID      int    `json:"pid"`
}

func (r *Ready) add(s ReadyService) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Services = append(r.Services, s)
}

// readyFiles are where the suite says that it is ready: in its directory, and
// where --ready-file asks for it.
func (s *starter) readyFiles() []string {
	files := []string{filepath.Join(s.dir, "ready.json")}
	if s.flags.readyFile != "" {
		files = append(files, s.flags.readyFile)
	}
	return files
}

func (s *starter) writeReady() error {
	s.ready.mu.Lock()
	defer s.ready.mu.Unlock()
	text, err := json.MarshalIndent(&s.ready, "", "  ")
	if err != nil {
		return fmt.Errorf("ready file: %w", err)
	}
	for _, path := range s.readyFiles() {
		if err := writeWhole(path, append(text, '\n')); err != nil {
			return fmt.Errorf("ready file: %w", err)
		}
		s.stops = append(s.stops, func() error { return removeIfThere(path) })
	}
	return nil
}

// replacePID notes that a child was started again.
func (s *starter) replacePID(old, now int) {
	s.ready.mu.Lock()
	defer s.ready.mu.Unlock()
	for i := range s.ready.Services {
		if s.ready.Services[i].PID == old {
			s.ready.Services[i].PID = now
		}
	}
	text, err := json.MarshalIndent(&s.ready, "", "  ")
	if err != nil {
		return
	}
	for _, path := range s.readyFiles() {
		if _, err := os.Stat(path); err == nil {
			if err := writeWhole(path, append(text, '\n')); err != nil {
				fmt.Fprintf(s.out, "ready file: %v\n", err)
			}
		}
	}
}

// writeWhole makes a file appear with all of its content or not at all.
func writeWhole(path string, text []byte) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
