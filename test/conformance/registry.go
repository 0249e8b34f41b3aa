package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// registry serves the images of archives (OCI image layouts) to the nodes, for the few tests that ask for a pull although the image is
// there: it stands for registry.k8s.io. OCI distribution-spec, "Pull".
type registry struct {
	tags  map[string]descriptor // by REPOSITORY:TAG
	blobs map[string]section    // by digest; manifests, too
	files []*os.File
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}

// section is where in an archive a blob is.
type section struct {
	file         *os.File
	offset, size int64
}

// standsFor is the registry whose names the images have.
const standsFor = "registry.k8s.io"

func openRegistry(archives []string) (*registry, error) {
	r := &registry{tags: map[string]descriptor{}, blobs: map[string]section{}}
	for _, path := range archives {
		if err := r.add(path); err != nil {
			r.close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return r, nil
}

func (r *registry) add(path string) error {
	f, err := os.Open(path) // stays open as long as its blobs are served
	if err != nil {
		return err
	}
	r.files = append(r.files, f)
	in := tar.NewReader(f)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if hex, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok {
			at, err := f.Seek(0, io.SeekCurrent) // the reader of a tar reads no further than it must
			if err != nil {
				return err
			}
			r.blobs["sha256:"+hex] = section{f, at, h.Size}
		}
		if h.Name != "index.json" {
			continue
		}
		var index struct{ Manifests []descriptor }
		if err := json.NewDecoder(in).Decode(&index); err != nil {
			return err
		}
		for _, d := range index.Manifests {
			r.tags[strings.TrimPrefix(d.Annotations["io.containerd.image.name"], standsFor+"/")] = d
		}
	}
}

func (r *registry) close() {
	for _, f := range r.files {
		_ = f.Close() // it was only read
	}
}

// ServeHTTP answers GET and HEAD of /v2/REPOSITORY/manifests/TAG-OR-DIGEST and /v2/REPOSITORY/blobs/DIGEST.
func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	dir, ref := filepath.Split(strings.TrimPrefix(req.URL.Path, "/v2/"))
	repository, manifest := strings.CutSuffix(dir, "/manifests/")
	digest, mediaType := ref, "application/octet-stream"
	if manifest {
		d := r.tags[repository+":"+ref]
		for _, known := range r.tags {
			if known.Digest == ref {
				d = known
			}
		}
		digest, mediaType = d.Digest, d.MediaType
	}
	blob, ok := r.blobs[digest]
	if !ok {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.FormatInt(blob.size, 10))
	w.Header().Set("Docker-Content-Digest", digest)
	if req.Method != http.MethodHead {
		_, _ = io.Copy(w, io.NewSectionReader(blob.file, blob.offset, blob.size)) // who went away is not told
	}
}

// registryAddr is where the registry is in the world.
const registryAddr = worldAddr + ":5000"

// serve answers until ctx ends, and then tells on the channel how it went.
func (r *registry) serve(ctx context.Context) (<-chan error, error) {
	l, err := net.Listen("tcp", registryAddr)
	if err != nil {
		return nil, fmt.Errorf("the images' registry: %w", err)
	}
	s := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // Serve tells
	done := make(chan error, 1)
	go func() {
		defer r.close()
		defer stop()
		err := s.Serve(l)
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		done <- err
	}()
	return done, nil
}

// mirror makes a node whose data directory is dir pull from the registry.
func mirror(dir string) error {
	hosts := filepath.Join(dir, "registry", standsFor, "hosts.toml")
	if err := os.MkdirAll(filepath.Dir(hosts), 0o755); err != nil {
		return err
	}
	return os.WriteFile(hosts, []byte(fmt.Sprintf("server = \"http://%s\"\n", registryAddr)), 0o644)
}
