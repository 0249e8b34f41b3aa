package image

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Write writes images as a tar of an OCI image layout (OCI image-spec, image-layout.md), the form that containerd,
// podman, skopeo and Docker 25 read.
func Write(w io.Writer, images ...*Image) error {
	a := &archive{tar: tar.NewWriter(w), written: map[v1.Hash]bool{}}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	if err := a.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	for _, img := range images {
		d, err := a.image(img)
		if err != nil {
			return fmt.Errorf("image %v: %w", img.Names, err)
		}
		for _, name := range img.Names {
			named := d
			// The first is containerd's for a whole reference; the second is the specification's.
			named.Annotations = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
			index.Manifests = append(index.Manifests, named)
		}
	}
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := a.file("index.json", data); err != nil {
		return err
	}
	return a.tar.Close()
}

type archive struct {
	tar     *tar.Writer
	written map[v1.Hash]bool
}

func (a *archive) file(name string, content []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644, ModTime: epoch, Format: tar.FormatPAX}
	if err := a.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := a.tar.Write(content)
	return err
}

func (a *archive) blob(hash v1.Hash, content func() ([]byte, error)) error {
	if a.written[hash] {
		return nil
	}
	a.written[hash] = true
	data, err := content()
	if err != nil {
		return err
	}
	return a.file("blobs/"+hash.Algorithm+"/"+hash.Hex, data)
}

// image writes an image's blobs and returns the descriptor of its manifest.
func (a *archive) image(img v1.Image) (v1.Descriptor, error) {
	layers, err := img.Layers()
	if err != nil {
		return v1.Descriptor{}, err
	}
	for _, l := range layers {
		hash, err := l.Digest()
		if err != nil {
			return v1.Descriptor{}, err
		}
		err = a.blob(hash, func() ([]byte, error) {
			r, err := l.Compressed()
			if err != nil {
				return nil, err
			}
			defer r.Close()
			return io.ReadAll(r)
		})
		if err != nil {
			return v1.Descriptor{}, err
		}
	}
	hash, err := img.ConfigName()
	if err != nil {
		return v1.Descriptor{}, err
	}
	if err := a.blob(hash, img.RawConfigFile); err != nil {
		return v1.Descriptor{}, err
	}
	if hash, err = img.Digest(); err != nil {
		return v1.Descriptor{}, err
	}
	if err := a.blob(hash, img.RawManifest); err != nil {
		return v1.Descriptor{}, err
	}
	size, err := img.Size()
	if err != nil {
		return v1.Descriptor{}, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: size, Digest: hash,
		Platform: &v1.Platform{OS: config.OS, Architecture: config.Architecture}}, nil
}
