from relisten.train.scratch.trainer import main

main()
