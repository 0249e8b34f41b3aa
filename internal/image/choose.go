package image

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// candidate is an image that the index of an archive lists.
type candidate struct {
	target ocispec.Descriptor
	// platforms are those of the image, or of the images of a nested index. None are known if the image does not say.
	platforms []ocispec.Platform
}

// fits reports whether the image runs on the machine.
func (c candidate) fits(machine platforms.Matcher) bool {
	return len(c.platforms) == 0 || slices.ContainsFunc(c.platforms, machine.Match)
}

// chosen is an image to import. As with a pull, the target has neither platform nor annotations.
type chosen struct {
	name   string
	target ocispec.Descriptor
}

// choose decides which images of an archive are imported, and under which names. Without a name, those that the archive names: all of
// them must fit the machine; of several with one name, one for each platform, the last that fits is meant. With a name, the archive's only image,
// whatever its name there.
func choose(all []candidate, name string, machine platforms.Matcher) ([]chosen, error) {
	if len(all) == 0 {
		return nil, errors.New("the archive holds no image")
	}
	if name != "" {
		return chooseOnly(all, name, machine)
	}
	var order []string
	byName := map[string][]candidate{}
	for _, c := range all {
		n := nameOf(c.target)
		if n == "" {
			continue
		}
		n, err := Normalize(n)
		if err != nil {
			return nil, err
		}
		if byName[n] == nil {
			order = append(order, n)
		}
		byName[n] = append(byName[n], c)
	}
	if len(order) == 0 {
		return nil, errors.New("the archive names no image by repository and tag; --name gives its image a name")
	}
	var out []chosen
	for _, n := range order {
		fit := fitting(byName[n], machine)
		if len(fit) == 0 {
			return nil, fmt.Errorf("image %s: %w", n, wrongPlatform(byName[n]))
		}
		out = append(out, chosen{name: n, target: plain(fit[len(fit)-1].target)})
	}
	return out, nil
}

func chooseOnly(all []candidate, name string, machine platforms.Matcher) ([]chosen, error) {
	name, err := Normalize(name)
	if err != nil {
		return nil, err
	}
	fit := fitting(all, machine)
	if len(fit) == 0 {
		return nil, wrongPlatform(all)
	}
	for _, c := range fit[1:] {
		if c.target.Digest != fit[0].target.Digest {
			return nil, fmt.Errorf("the archive holds several images (%s, %s): one name cannot stand for all of them",
				cmp.Or(nameOf(fit[0].target), fit[0].target.Digest.String()), cmp.Or(nameOf(c.target), c.target.Digest.String()))
		}
	}
	return []chosen{{name: name, target: plain(fit[0].target)}}, nil
}

func fitting(all []candidate, machine platforms.Matcher) []candidate {
	return slices.DeleteFunc(slices.Clone(all), func(c candidate) bool { return !c.fits(machine) })
}

func wrongPlatform(all []candidate) error {
	var have []string
	for _, c := range all {
		for _, p := range c.platforms {
			have = append(have, platforms.Format(p))
		}
	}
	slices.Sort(have)
	return fmt.Errorf("it is for %s, this machine is %s", strings.Join(slices.Compact(have), ", "), platforms.DefaultString())
}

// nameOf returns the name that an archive gives an image; "" if it has none. The OCI's annotation may hold a tag alone, which is no
// name (image-spec, annotations.md): a repository or a host is asked for.
func nameOf(d ocispec.Descriptor) string {
	if n := d.Annotations[images.AnnotationImageName]; n != "" {
		return n
	}
	if n := d.Annotations[ocispec.AnnotationRefName]; strings.ContainsAny(n, "/:@") {
		return n
	}
	return ""
}

func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}
