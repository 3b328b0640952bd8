#!/bin/sh
# Every role starts here. Where Spark is used, all its parts must prove that they know $SPARK_SECRET; it goes into a
# file that only this user may read, since command lines are visible to everybody.
set -eu
if [ -n "${SPARK_SECRET:-}" ]; then
    mkdir -p "$SPARK_CONF_DIR"
    (
        umask 077
        {
            echo "spark.authenticate true"
            echo "spark.authenticate.secret $SPARK_SECRET"
            echo "spark.network.crypto.enabled true"
        } > "$SPARK_CONF_DIR/spark-defaults.conf"
    )
    unset SPARK_SECRET
fi
exec "$@"
