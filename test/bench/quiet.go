package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"k8s.io/client-go/rest"
)

// quietGets reads one object over and over while many connections list everything, in a process of their own: what is left for a small
// request. It needs curl.
func (s *server) quietGets(ctx context.Context, connections int, during time.Duration) (_ figure, err error) {
	noise, err := s.startLists(ctx, connections)
	if err != nil {
		return figure{}, err
	}
	defer func() { err = errors.Join(err, noise()) }()
	client, err := rest.HTTPClientFor(s.config)
	if err != nil {
		return figure{}, err
	}
	if err := sleep(ctx, time.Second); err != nil { // until all have begun
		return figure{}, err
	}
	var took []time.Duration
	for began := time.Now(); time.Since(began) < during; {
		before := time.Now()
		if _, err := discard(ctx, client, s.config.Host+"/api/v1/namespaces/default", jsonType); err != nil {
			return figure{}, err
		}
		took = append(took, time.Since(before))
	}
	slices.Sort(took)
	at := func(share float64) time.Duration {
		return took[min(int(share*float64(len(took))), len(took)-1)].Round(100 * time.Microsecond)
	}
	return figure{fmt.Sprintf("get beside %d connections that list", connections), fmt.Sprintf("%v median", at(0.5)), "",
		fmt.Sprintf("%v at 99 %%, %v at most, of %d", at(0.99), took[len(took)-1].Round(100*time.Microsecond), len(took))}, nil
}

// startLists lists all pods over and over on many connections, and returns what ends that.
func (s *server) startLists(ctx context.Context, connections int) (stop func() error, err error) {
	if err := rest.LoadTLSFiles(s.config); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.dataDir, "lists")
	if err != nil {
		return nil, err
	}
	args := []string{"--silent", "--http1.1", "--output", os.DevNull, "--header", "Accept: " + jsonType,
		"--parallel", "--parallel-immediate", "--parallel-max", strconv.Itoa(connections)}
	tls := s.config.TLSClientConfig
	for option, data := range map[string][]byte{"cacert": tls.CAData, "cert": tls.CertData, "key": tls.KeyData} {
		file := filepath.Join(dir, option)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--"+option, file)
	}
	cmd := exec.CommandContext(ctx, "curl", append(args, s.config.Host+"/api/v1/pods?n=[1-1000000]")...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		return nil
	}, nil
}
