package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	spec "github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller/rollout"
)

// revisionAnnotation has the number of a Deployment's or ReplicaSet's revision.
const revisionAnnotation = "deployment.kubernetes.io/revision"

// Rollout is knarr rollout: canaries and blue/green roll-outs of Deployments.
func Rollout() *cobra.Command {
	var dataDir, namespace string
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Watch over Deployments that roll out in steps",
		Long: `A Deployment with the annotation ` + spec.How + ` rolls out in steps: a canary, or blue/green. These commands show where it is, and ask it
to go on or back; kubectl annotate deployment NAME ` + spec.Action + `=promote does the same. kubectl rollout status and undo work as ever.`,
	}
	cmd.PersistentFlags().StringVar(&dataDir, "data-dir", dataDirFromEnv(), "the cluster's data directory")
	cmd.PersistentFlags().StringVarP(&namespace, "namespace", "n", metav1.NamespaceDefault, "the Deployment's namespace")
	with := func(do func(ctx context.Context, out io.Writer, c client.Client, key api.Key) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			a, err := newAdmin(dataDir)
			if err != nil {
				return err
			}
			defer a.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			name := strings.TrimPrefix(strings.TrimPrefix(args[0], "deployment/"), "deploy/")
			return do(ctx, cmd.OutOrStdout(), a, api.Key{Namespace: namespace, Name: name})
		}
	}
	asks := func(action string) func(*cobra.Command, []string) error {
		return with(func(ctx context.Context, out io.Writer, c client.Client, key api.Key) error {
			return askRollout(ctx, out, c, key, action)
		})
	}
	var full bool
	promote := &cobra.Command{
		Use: "promote NAME", Short: "End the pause that it is in, or skip all steps", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if full {
				return asks(spec.PromoteFull)(cmd, args)
			}
			return asks(spec.Promote)(cmd, args)
		},
	}
	promote.Flags().BoolVar(&full, "full", false, "skip all steps that are left")
	cmd.AddCommand(
		&cobra.Command{Use: "status NAME", Short: "Show its steps, revisions and what it waits for", Args: cobra.ExactArgs(1), RunE: with(showRollout)},
		promote,
		&cobra.Command{Use: "abort NAME", Short: "Roll back to the stable revision", Args: cobra.ExactArgs(1), RunE: asks(spec.Abort)},
		&cobra.Command{Use: "retry NAME", Short: "Begin again after a roll-back", Args: cobra.ExactArgs(1), RunE: asks(spec.Retry)},
	)
	return cmd
}

// askRollout writes an action into a Deployment that rolls out in steps.
func askRollout(ctx context.Context, out io.Writer, c client.Client, key api.Key, action string) error {
	d, err := deployment(ctx, c, key)
	if err != nil {
		return err
	}
	if strategy, err := spec.StrategyIn(d.Annotations); err != nil {
		return err
	} else if strategy == nil {
		return fmt.Errorf("Deployment %s has no annotation %s: it rolls out without steps, and kubectl rollout is for it", key, spec.How)
	}
	if _, err := client.Mutate(ctx, c, key, "", func(d *appsv1.Deployment) bool {
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[spec.Action] = action
		return true
	}); err != nil {
		return fmt.Errorf("asking Deployment %s to %s: %w", key, action, err)
	}
	_, err = fmt.Fprintf(out, "asked Deployment %s to %s (knarr rollout status -n %s %s shows what comes of it)\n", key, action, key.Namespace, key.Name)
	return err
}

func deployment(ctx context.Context, c client.Client, key api.Key) (*appsv1.Deployment, error) {
	d, err := client.Get[*appsv1.Deployment](ctx, c, key)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is no Deployment %s (-n names its namespace)", key)
	}
	return d, err
}

// showRollout prints where the roll-out of a Deployment stands.
func showRollout(ctx context.Context, out io.Writer, c client.Client, key api.Key) error {
	d, err := deployment(ctx, c, key)
	if err != nil {
		return err
	}
	all, err := client.List[*appsv1.ReplicaSet](ctx, c, client.ListOptions{Namespace: key.Namespace})
	if err != nil {
		return err
	}
	sets := slices.DeleteFunc(slices.Clone(all), func(rs *appsv1.ReplicaSet) bool { return !metav1.IsControlledBy(rs, d) })
	slices.SortFunc(sets, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(number(b), number(a)) })
	fmt.Fprintf(out, "Deployment %s: %d replicas, %d updated, %d available\n", key, d.Status.Replicas, d.Status.UpdatedReplicas, d.Status.AvailableReplicas)
	for _, cond := range d.Status.Conditions {
		if cond.Type == "Progressing" || strings.HasPrefix(string(cond.Type), "knarr.io/") {
			fmt.Fprintf(out, "  %s: %s (%s) %s\n", cond.Type, cond.Status, cond.Reason, cond.Message)
		}
	}
	var state *rollout.State
	if len(sets) > 0 {
		state = stateOf(sets[0])
	}
	strategy, err := spec.StrategyIn(d.Annotations)
	if err == nil && strategy != nil {
		printSteps(out, strategy, state)
	}
	w := tabwriter.NewWriter(out, 0, 4, 3, ' ', 0)
	fmt.Fprintln(w, "\nREVISION\tREPLICASET\tPODS\tAVAILABLE\tPHASE\tIMAGES")
	for i, rs := range sets {
		if i > 0 && *rs.Spec.Replicas == 0 && rs.Status.Replicas == 0 {
			continue // history; kubectl rollout history shows it
		}
		phase := "-"
		if st := stateOf(rs); st != nil {
			phase = string(st.Phase)
		}
		var images []string
		for _, container := range rs.Spec.Template.Spec.Containers {
			images = append(images, container.Image)
		}
		fmt.Fprintf(w, "%d\t%s\t%d\t%d\t%s\t%s\n", number(rs), rs.Name, *rs.Spec.Replicas, rs.Status.AvailableReplicas, phase, strings.Join(images, ","))
	}
	return w.Flush()
}

// printSteps marks the step of a strategy that a roll-out is at.
func printSteps(out io.Writer, s *spec.Strategy, state *rollout.State) {
	fmt.Fprintf(out, "\n%s\n", s.Type)
	for i, step := range s.Steps {
		mark := " "
		switch {
		case state == nil:
		case state.Phase == rollout.Promoted || i < state.Step:
			mark = "✓"
		case i == state.Step && state.Phase == rollout.RolledBack:
			mark = "✗"
		case i == state.Step:
			mark = "›"
		}
		fmt.Fprintf(out, " %s %d. %s\n", mark, i+1, step)
	}
	for _, check := range s.Checks {
		fmt.Fprintf(out, "   check: %s\n", check)
	}
}

func number(rs *appsv1.ReplicaSet) int64 {
	n, _ := strconv.ParseInt(rs.Annotations[revisionAnnotation], 10, 64)
	return n
}

func stateOf(rs *appsv1.ReplicaSet) *rollout.State {
	st := &rollout.State{}
	if text := rs.Annotations[spec.State]; text == "" || json.Unmarshal([]byte(text), st) != nil {
		return nil
	}
	return st
}
