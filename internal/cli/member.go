package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/knarr-io/knarr/internal/cluster"
)

// Member is knarr member: the servers of the cluster.
func Member() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "member",
		Short: "List and remove the servers of the cluster",
		Long: `A cluster with several servers goes on while more than half of them are there: with three, any one may be lost. knarr server --join
adds one; knarr down --delete-data on a server makes it leave; one that is lost for good is removed with knarr member rm, and then no longer
counts.`,
	}
	cmd.PersistentFlags().StringVar(&dataDir, "data-dir", dataDirFromEnv(), "the cluster's data directory")
	var output string
	list := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the servers", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var members cluster.MemberList
			if err := askServers(cmd.Context(), dataDir, "", http.MethodGet, "", &members); err != nil {
				return err
			}
			return printMembers(cmd.OutOrStdout(), members, output)
		},
	}
	list.Flags().StringVarP(&output, "output", "o", "", "json, or nothing for a table")
	remove := &cobra.Command{
		Use: "rm NAME...", Short: "Remove servers for good, unless too few of the others answer", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				var gone cluster.Member
				if err := askServers(cmd.Context(), dataDir, "", http.MethodDelete, "/"+name, &gone); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "removed server %s\n", name)
			}
			return nil
		},
	}
	cmd.AddCommand(list, remove)
	return cmd
}

func printMembers(out io.Writer, members cluster.MemberList, output string) error {
	switch output {
	case "json":
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(members)
	case "":
	default:
		return fmt.Errorf("-o %q: want json", output)
	}
	w := tabwriter.NewWriter(out, 0, 4, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tID\tADDRESS\tROLE\tANSWERS")
	for _, m := range members.Items {
		role, answers := "votes", "yes"
		switch {
		case m.Leader:
			role = "leads"
		case m.Learner:
			role = "catches up"
		}
		if !m.Answers {
			answers = "no"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", m.Name, m.ID, m.URL, role, answers)
	}
	return w.Flush()
}

// askServers sends a request about the servers of the cluster of dataDir, as its administrator, to the server at a URL or else to that of the
// kubeconfig.
func askServers(ctx context.Context, dataDir, server, method, path string, out any) error {
	kubeconfig := cluster.KubeconfigPath(dataDir)
	if k := os.Getenv("KUBECONFIG"); k != "" {
		if _, err := os.Stat(kubeconfig); err != nil {
			kubeconfig = k
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("there is no administrator's kubeconfig at %s: run this on a server, or set KUBECONFIG: %w", kubeconfig, err)
	}
	config.Timeout = 15 * time.Second
	server = cmp.Or(server, config.Host)
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, server+cluster.ServersPath+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("asking the server: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("asking the server: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var status metav1.Status
		if json.Unmarshal(body, &status) == nil && status.Message != "" {
			return &apierrors.StatusError{ErrStatus: status}
		}
		return fmt.Errorf("the server answered %s", resp.Status)
	}
	return json.Unmarshal(body, out)
}

// leaveTime is how long a server that is asked to leave may be starting, or electing.
const leaveTime = 10 * time.Second

// leave takes the server of dataDir out of a cluster that has others, before its data is deleted: they would count it for ever, and might be too
// few without it.
func leave(ctx context.Context, out io.Writer, dataDir string, running, force bool) error {
	m, err := cluster.LoadMembership(dataDir)
	if err != nil || m != nil && m.ExternalEtcd {
		return err
	}
	if _, err := os.Stat(cluster.KubeconfigPath(dataDir)); err != nil {
		return nil // no server has been here, or it has not got far
	}
	server, name := "", ""
	if m != nil {
		name = m.Name
	}
	if !running {
		if m == nil || m.Server == "" {
			return nil // whether there are others is not known
		}
		server = m.Server
	}
	others, err := leaveOthers(ctx, dataDir, server, name)
	for began := time.Now(); apierrors.IsServiceUnavailable(err) && time.Since(began) < leaveTime && ctx.Err() == nil; {
		time.Sleep(200 * time.Millisecond)
		others, err = leaveOthers(ctx, dataDir, server, name)
	}
	switch {
	case err == nil && others > 0:
		fmt.Fprintf(out, "left the cluster; %d other servers go on\n", others)
	case err != nil && !force:
		return fmt.Errorf("leaving the cluster's other servers: %w; with --force the data is deleted all the same, and the others have to be told by knarr member rm", err)
	case err != nil:
		fmt.Fprintf(out, "could not leave the cluster's other servers (%v): they have to be told by knarr member rm\n", err)
	}
	return nil
}

// leaveOthers removes the server with a name, or the one that is asked, from those of the cluster, and returns how many others there are.
func leaveOthers(ctx context.Context, dataDir, server, name string) (int, error) {
	var members cluster.MemberList
	if err := askServers(ctx, dataDir, server, http.MethodGet, "", &members); err != nil {
		return 0, err
	}
	i := slices.IndexFunc(members.Items, func(m cluster.Member) bool { return server == "" && m.Self || server != "" && m.Name == name })
	if i < 0 || len(members.Items) == 1 {
		return 0, nil
	}
	me := members.Items[i]
	return len(members.Items) - 1, askServers(ctx, dataDir, server, http.MethodDelete, "/"+cmp.Or(me.Name, me.ID), &cluster.Member{})
}
