package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/knarr-io/knarr/internal/image"
	"github.com/knarr-io/knarr/internal/node/containerd"
)

// Image is knarr image: the images on this machine.
func Image() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{Use: "image", Short: "Build, import, list and remove container images on this machine"}
	cmd.PersistentFlags().StringVar(&dataDir, "data-dir", dataDirFromEnv(), "the cluster's data directory")
	open := func() (*image.Store, error) {
		options := containerd.Options{DataDir: dataDir}
		if _, err := os.Stat(options.Endpoint()); err != nil {
			return nil, fmt.Errorf("no container runtime runs in %s: `knarr up` starts a cluster (--data-dir or KNARR_DATA_DIR name another)", dataDir)
		}
		s, err := image.OpenStore(options.Endpoint())
		if err != nil {
			return nil, fmt.Errorf("the runtime of %s does not answer (is knarr running? `knarr up` starts it): %w", dataDir, err)
		}
		return s, nil
	}
	cmd.AddCommand(imageImport(open), imageList(open), imageRemove(open), imageBuild())
	return cmd
}

type openStore func() (*image.Store, error)

func imageImport(open openStore) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "import FILE...", Short: "Import images from archives (docker save, OCI layout; - is standard input)", Args: cobra.MinimumNArgs(1),
		Long: `Import the images of archives, as docker save, podman, skopeo and knarr image build write them; gzip and zstd are undone.

An imported image is what a pulled one would be: pods find it by tag, by digest and by ID, and it is removed as a pulled one is when the
disk fills and no pod uses it. An archive is imported as a whole or not at all.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if name != "" && len(args) > 1 {
				return errors.New("--name names the image of one archive")
			}
			store, err := open()
			if err != nil {
				return err
			}
			defer store.Close()
			for _, path := range args {
				if err := importFile(cmd.Context(), store, path, name, cmd.OutOrStdout()); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the archive's only image, whatever the archive calls it")
	return cmd
}

func importFile(ctx context.Context, store *image.Store, path, name string, out io.Writer) error {
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return err
		}
		defer f.Close()
	}
	images, err := store.Import(ctx, f, name)
	if err != nil {
		return fmt.Errorf("importing %s: %w", path, err)
	}
	for _, i := range images {
		fmt.Fprintln(out, i.Name)
	}
	return nil
}

func imageList(open openStore) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List images", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := open()
			if err != nil {
				return err
			}
			defer store.Close()
			images, err := store.List(cmd.Context())
			if err != nil {
				return err
			}
			return printImages(cmd.OutOrStdout(), cmd.ErrOrStderr(), images)
		},
	}
}

// printImages writes a table of images, and what is wrong with those that are damaged.
func printImages(out, problems io.Writer, images []image.Stored) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tID\tDIGEST\tSIZE")
	for _, i := range images {
		size := resource.NewQuantity(i.Size, resource.BinarySI).String()
		if i.Problem != nil {
			size = "damaged"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", i.Name, shortDigest(i.ID), shortDigest(i.Digest), size)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, i := range images {
		if i.Problem != nil {
			fmt.Fprintf(problems, "image %s is damaged: %v (import it again, or remove it: knarr image rm)\n", i.Name, i.Problem)
		}
	}
	return nil
}

// shortDigest is the beginning of a digest, which knarr image rm takes, too.
func shortDigest(d string) string {
	if d == "" {
		return "-"
	}
	return d[:min(len(d), len("sha256:")+12)]
}

func imageRemove(open openStore) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME...", Short: "Remove images by tag, by digest (REPOSITORY@sha256:...), or by ID, which may be shortened", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := open()
			if err != nil {
				return err
			}
			defer store.Close()
			var errs []error
			for _, name := range args {
				if err := store.Remove(cmd.Context(), name); err != nil {
					errs = append(errs, fmt.Errorf("removing %s: %w", name, err))
				}
			}
			return errors.Join(errs...)
		},
	}
}

func imageBuild() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "build DIR",
		Short: "Assemble images from files and Debian packages, without a registry or a build daemon",
		Long: `Assemble the images that DIR/image.yaml describes - files, Debian packages with what they depend on, entrypoint - into an
archive that knarr image import, docker load and ctr images import take.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := image.Load(args[0])
			if err != nil {
				return err
			}
			img, err := image.Build(cmd.Context(), args[0], spec)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
				return err
			}
			f, err := os.Create(output)
			if err != nil {
				return err
			}
			if err := errors.Join(image.Write(f, img), f.Close()); err != nil {
				return fmt.Errorf("writing %s: %w", output, err)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "image.tar", "archive to write")
	return cmd
}
