package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layout is an OCI layout of what index lists, with the blobs of images and more.
func layout(t *testing.T, index v1.IndexManifest, images []*Image, more ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := &archive{tar: tar.NewWriter(&b), written: map[v1.Hash]bool{}}
	for _, i := range images {
		if _, err := w.image(i); err != nil {
			t.Fatal(err)
		}
	}
	data, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(more, file{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)}, file{"index.json", data}) {
		if err := w.file(f.name, f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.tar.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// described is the descriptor of an image's manifest.
func described(t *testing.T, i *Image, name string) v1.Descriptor {
	t.Helper()
	w := &archive{tar: tar.NewWriter(&bytes.Buffer{}), written: map[v1.Hash]bool{}}
	d, err := w.image(i)
	if err != nil {
		t.Fatal(err)
	}
	if name != "" {
		d.Annotations = map[string]string{"org.opencontainers.image.ref.name": name}
	}
	return d
}

// flat lists manifests by one name.
func flat(t *testing.T, name string, images ...*Image) []byte {
	t.Helper()
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, i := range images {
		index.Manifests = append(index.Manifests, described(t, i, name))
	}
	return layout(t, index, images)
}

// ociTagged is a layout of one image with the specification's annotation alone, as skopeo writes it: no platform either.
func ociTagged(t *testing.T, i *Image, name string) []byte {
	t.Helper()
	d := described(t, i, name)
	d.Platform = nil
	return layout(t, v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{d}}, []*Image{i})
}

// nested is an index, and its descriptor.
type nested struct {
	v1.Descriptor
	data []byte
}

// indexOf is an index of images, and an attestation as buildkit adds it.
func indexOf(t *testing.T, images ...*Image) nested {
	t.Helper()
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, i := range images {
		index.Manifests = append(index.Manifests, described(t, i, ""))
	}
	attestation := described(t, builtFor(t, "unknown", "attestation"), "")
	attestation.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	index.Manifests = append(index.Manifests, attestation)
	data, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	hash, size, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return nested{v1.Descriptor{MediaType: types.OCIImageIndex, Digest: hash, Size: size}, data}
}

// multi is a layout whose only image is an index, with the blobs of images.
func multi(t *testing.T, index nested, name string, images ...*Image) []byte {
	t.Helper()
	d := index.Descriptor
	d.Annotations = map[string]string{"io.containerd.image.name": name}
	return layout(t, v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{d}}, images,
		file{"blobs/sha256/" + index.Digest.Hex, index.data})
}
