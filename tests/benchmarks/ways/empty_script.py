"""Started by `spark-submit`: does nothing."""

from pyspark.sql import SparkSession

SparkSession.builder.getOrCreate().stop()
